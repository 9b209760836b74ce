"""The privileged teacher in the processes that simulate: NumPy alone, small enough to be sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from z1_ros.types import Step

Execute = Callable[[np.ndarray], Step]
"""Executes actions (k, action_dim)."""
Read = Callable[[], np.ndarray]
"""Reads the privileged state (n,)."""
INPUT_LIMIT = 5.0
"""Where a teacher's inputs are clipped, in standard deviations."""
EPSILON = 1e-5
"""Of its layer norm."""


@dataclass(frozen=True, slots=True)
class NumpyTeacher:
    """A teacher's weights in NumPy."""

    weights: Mapping[str, np.ndarray]
    """As ``Teacher.state_dict`` names them."""

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each dimension (actions,)."""
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
        """Return what it executes of an action (actions,)."""
        return np.clip(action, self.weights["low"], self.weights["high"]).astype(np.float32)

    def log_prob(self, action: np.ndarray, mean: np.ndarray) -> float:
        """Return the log-probability of an action (actions,), less a constant."""
        error = (action - mean) / self.std
        return float((-0.5 * error * error - self.weights["log_std"]).sum())


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRollouts:
    """What came of a teacher's rollouts from one state; N decisions in all, one after another."""

    steps_before: int
    """Control steps of the episode before each rollout."""
    privileged: np.ndarray
    """State before each decision (N, n) float32."""
    action: np.ndarray
    """What was decided, before any limit (N, action_dim) float32."""
    log_prob: np.ndarray
    """(N,) float32."""
    lengths: np.ndarray
    """Decisions of each rollout (G,)."""
    steps: np.ndarray
    """Control steps of each rollout (G,)."""
    success: np.ndarray
    """(G,) bool."""


def roll_out(
    teacher: NumpyTeacher,
    keys: tuple[tuple[int, ...], ...],
    begin: Callable[[], None],
    execute: Execute,
    read: Read,
    *,
    hold_steps: int,
    steps_before: int,
    noise: bool,
) -> TeacherRollouts:
    """Run rollouts from one state.

    Args:
        teacher: Acts.
        keys: Whole numbers that name each rollout; they seed its noise.
        begin: Goes to the state.
        execute: Executes.
        read: Reads the privileged state.
        hold_steps: Control steps for which an action is held.
        steps_before: Control steps of the episode before the state.
        noise: False: the mean action.
    """
    states: list[np.ndarray] = []
    actions, log_probs, ends = [], [], []
    for key in keys:
        begin()
        random = np.random.default_rng(key)
        first = len(states)
        while True:
            privileged = read()
            action = mean = teacher.mean(privileged)
            if noise:
                drawn = random.standard_normal(len(mean), np.float32)
                action = (mean + teacher.std * drawn).astype(np.float32)
            states.append(privileged)
            actions.append(action)
            log_probs.append(teacher.log_prob(action, mean))
            step = execute(np.repeat(teacher.limited(action)[None], hold_steps, 0))
            if step.done:
                break
        ends.append((len(states) - first, step.steps - steps_before, step.success))
    lengths, steps, success = zip(*ends, strict=True)
    return TeacherRollouts(
        steps_before=steps_before,
        privileged=np.stack(states),
        action=np.stack(actions),
        log_prob=np.array(log_probs, np.float32),
        lengths=np.array(lengths),
        steps=np.array(steps),
        success=np.array(success),
    )


def relabel(
    teacher: NumpyTeacher, execute: Execute, read: Read, *, horizon: int, hold_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the chunk that a teacher executes from here, and which of it precedes the end.

    Args:
        teacher: Acts, without noise.
        execute: Executes; the caller goes back to where this began.
        read: Reads the privileged state.
        horizon: Actions of the chunk.
        hold_steps: Control steps for which an action is held.

    Returns:
        (horizon, action_dim) float32, and (horizon,) bool.
    """
    chunk: list[np.ndarray] = []
    while len(chunk) < horizon:
        action = teacher.limited(teacher.mean(read()))
        held = [action] * min(hold_steps, horizon - len(chunk))
        chunk += held
        if execute(np.stack(held)).done:
            break
    valid = np.arange(horizon) < len(chunk)
    chunk += [np.zeros_like(chunk[0])] * (horizon - len(chunk))
    return np.stack(chunk), valid
