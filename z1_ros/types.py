"""The data types that policy, runtime and simulator exchange.

Arrays are NumPy arrays; their numbers are identified by name, not by position.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """Images, state and instruction of one instant on a robot; never object poses or task ids."""

    images: Mapping[str, np.ndarray]
    """Camera name -> (height, width, 3) uint8 RGB, upright."""
    state: Mapping[str, np.ndarray]
    """State field name -> (field size,) float32, in the unit of the embodiment's field."""
    instruction: str
    """Instruction in natural language."""
    stamp_ns: int
    """Time of the observation [ns], in the clock of the robot or simulator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionChunk:
    """The next ``horizon`` actions that a policy plans, one per control step."""

    actions: np.ndarray
    """(horizon, action_dim) float32 in the embodiment's action units, unnormalised."""
    dims: tuple[str, ...]
    """Name of each action dimension, e.g. ``end_effector_position.x``."""
    stamp_ns: int
    """Stamp of the observation that caused the chunk [ns]; actions[0] is for that instant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Result of advancing an environment."""

    steps: int
    """Control steps since reset."""
    success: bool
    """Whether the task's success predicate was true at some step of this episode."""
    done: bool
    """Whether the episode is over: success, or the task's horizon reached."""
    consumed: int
    """Number of the given actions that were executed (fewer if the episode ended early)."""
