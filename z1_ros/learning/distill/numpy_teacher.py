"""The privileged teacher in NumPy, for the environment workers, and what they are asked for.

The workers need no torch, and the weights are small enough to be sent with each request.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from z1_ros.learning.rollout.env_worker import Reply, Request

INPUT_LIMIT = 5.0
"""Limit to which a teacher's normalised inputs are clipped, in standard deviations."""
EPSILON = 1e-5
"""Epsilon of the teacher's layer norm."""


@dataclass(frozen=True, slots=True)
class NumpyTeacher:
    """A teacher that runs on NumPy."""

    weights: Mapping[str, np.ndarray]
    """Weights by the names in ``Teacher.state_dict``."""

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of the noise of each action dimension (actions,)."""
        return np.exp(self.weights["log_std"])

    def mean(self, privileged: np.ndarray) -> np.ndarray:
        """Return the mean action (actions,) float32 of a privileged state (inputs,)."""
        w = self.weights
        scaled = np.clip((privileged - w["mean"]) / w["scale"], -INPUT_LIMIT, INPUT_LIMIT)
        hidden = w["first.weight"] @ scaled + w["first.bias"]
        hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + EPSILON)
        hidden = _silu(hidden * w["norm.weight"] + w["norm.bias"])
        hidden = _silu(w["second.weight"] @ hidden + w["second.bias"])
        return w["last.weight"] @ hidden + w["last.bias"]

    def limited(self, action: np.ndarray) -> np.ndarray:
        """Return an action (actions,) clipped to the teacher's action range, as float32."""
        return np.clip(action, self.weights["low"], self.weights["high"]).astype(np.float32)

    def log_prob(self, action: np.ndarray, mean: np.ndarray) -> float:
        """Return the log-probability of an action (actions,), up to a constant."""
        error = (action - mean) / self.std
        return float((-0.5 * error * error - self.weights["log_std"]).sum())


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@dataclass(frozen=True, kw_only=True, slots=True)
class Relabel:
    """Asks for the chunk of ``horizon`` actions that a teacher executes in the current state."""

    teacher: NumpyTeacher
    horizon: int
    hold_steps: int
    """Number of control steps for which each action is repeated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRequest(Request):
    """Asks for rollouts of a teacher from one state; the next request must begin an episode."""

    teacher: NumpyTeacher
    steps_before: int = 0
    """Control steps of the episode before the snapshot."""
    keys: tuple[tuple[int, ...], ...]
    """Key of each rollout, as integers; a key seeds the noise of its rollout."""
    hold_steps: int
    """Number of control steps for which each action is repeated."""
    noise: bool = True
    """Whether to add noise to the actions; False executes the mean action."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRollouts(Reply):
    """Results of G rollouts of a teacher from one state; their N decisions are concatenated."""

    steps_before: int
    """Control steps of the episode before the rollouts begin."""
    privileged: np.ndarray
    """Privileged state before each decision (N, n) float32."""
    action: np.ndarray
    """Action of each decision, before clipping (N, action_dim) float32."""
    log_prob: np.ndarray
    """Log-probability of each action (N,) float32."""
    lengths: np.ndarray
    """Number of decisions in each rollout (G,)."""
    steps: np.ndarray
    """Number of control steps in each rollout (G,)."""
    success: np.ndarray
    """Whether each rollout reached the task (G,) bool."""
