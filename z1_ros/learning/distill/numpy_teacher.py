"""The privileged teacher in NumPy, for the environment workers: its rollouts and its labels.

The workers need no torch, and the weights are small enough to be sent with each request.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from z1_ros.learning.rollout.env_worker import Reply, Request
from z1_ros.types import Step

Execute = Callable[[np.ndarray], Step]
"""Function that executes actions (k, action_dim) and returns the step result."""
Read = Callable[[], np.ndarray]
"""Function that returns the current privileged state (n,)."""
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


def roll_out(
    request: TeacherRequest, begin: Callable[[], None], execute: Execute, read: Read
) -> TeacherRollouts:
    """Run the requested rollouts; ``begin`` resets the environment to their start state."""
    teacher = request.teacher
    states: list[np.ndarray] = []
    actions, log_probs, ends = [], [], []
    for key in request.keys:
        begin()
        random = np.random.default_rng(key)
        first = len(states)
        while True:
            privileged = read()
            action = mean = teacher.mean(privileged)
            if request.noise:
                drawn = random.standard_normal(len(mean), np.float32)
                action = (mean + teacher.std * drawn).astype(np.float32)
            states.append(privileged)
            actions.append(action)
            log_probs.append(teacher.log_prob(action, mean))
            step = execute(np.repeat(teacher.limited(action)[None], request.hold_steps, 0))
            if step.done:
                break
        ends.append((len(states) - first, step.steps - request.steps_before, step.success))
    lengths, steps, success = zip(*ends, strict=True)
    return TeacherRollouts(
        steps_before=request.steps_before,
        privileged=np.stack(states),
        action=np.stack(actions),
        log_prob=np.array(log_probs, np.float32),
        lengths=np.array(lengths),
        steps=np.array(steps),
        success=np.array(success),
    )


def relabel(wanted: Relabel, execute: Execute, read: Read) -> tuple[np.ndarray, np.ndarray]:
    """Let a teacher act from the current state; the caller must restore the environment.

    Returns the chunk (horizon, action_dim) float32, and which of its actions were executed before
    the episode ended (horizon,) bool; the others are zero.
    """
    teacher, horizon = wanted.teacher, wanted.horizon
    chunk: list[np.ndarray] = []
    while len(chunk) < horizon:
        action = teacher.limited(teacher.mean(read()))
        held = [action] * min(wanted.hold_steps, horizon - len(chunk))
        chunk += held
        if execute(np.stack(held)).done:
            break
    valid = np.arange(horizon) < len(chunk)
    chunk += [np.zeros_like(chunk[0])] * (horizon - len(chunk))
    return np.stack(chunk), valid
