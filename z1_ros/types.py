"""The values that travel between policy, runtime and simulator.

Arrays are NumPy; names, not positions, say what a number means.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a real robot knows at one instant; never object poses or task ids."""

    images: Mapping[str, np.ndarray]
    """Camera name -> (height, width, 3) uint8 RGB, upright."""
    state: Mapping[str, np.ndarray]
    """State field name -> (field size,) float32, in the unit of the embodiment's field."""
    instruction: str
    """What to do, in words."""
    stamp_ns: int
    """Time at which it was true [ns], in the clock of the robot or simulator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionChunk:
    """What a policy plans: the next ``horizon`` actions, one per control step."""

    actions: np.ndarray
    """(horizon, action_dim) float32 in the embodiment's action units, unnormalised."""
    dims: tuple[str, ...]
    """Name of each action dimension, e.g. ``end_effector_position.x``."""
    stamp_ns: int
    """Stamp of the observation that caused it [ns]; actions[0] is for that instant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Result of advancing an environment."""

    steps: int
    """Control steps since reset."""
    success: bool
    """The task's own success predicate has been true at some step of this episode."""
    done: bool
    """The episode is over: success, or the task's horizon reached."""
    consumed: int
    """How many of the given actions were executed (fewer than given if it ended early)."""
