"""What a teacher does in a simulator: practise, and say what it would do. NumPy alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from z1_ros.types import Step

Execute = Callable[[np.ndarray], Step]
"""Executes actions (k, action_dim)."""
Read = Callable[[], np.ndarray]
"""Reads the simulator's truth (n,)."""
FARTHEST = 5.0
"""Where a teacher's inputs are cut off, in standard deviations."""
EPSILON = 1e-5
"""Of its layer norm."""


@dataclass(frozen=True, slots=True)
class PlainTeacher:
    """A teacher's weights in NumPy, for the processes that simulate; small enough to send."""

    weights: Mapping[str, np.ndarray]
    """As ``Teacher.state_dict`` names them."""

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each dimension (actions,)."""
        return np.exp(self.weights["log_std"])

    def mean(self, truth: np.ndarray) -> np.ndarray:
        """Return the mean action (actions,) float32 of a truth (inputs,)."""
        w = self.weights
        near = np.clip((truth - w["mean"]) / w["scale"], -FARTHEST, FARTHEST)
        hidden = w["first.weight"] @ near + w["first.bias"]
        hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + EPSILON)
        hidden = _silu(hidden * w["norm.weight"] + w["norm.bias"])
        return (
            w["last.weight"] @ _silu(w["second.weight"] @ hidden + w["second.bias"])
            + (w["last.bias"])
        )

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
class Practice:
    """A group of episodes with one beginning, acted by a teacher with noise of its own."""

    teacher: PlainTeacher
    """Who acts."""
    seed: int = 0
    """The scene, at whose start they begin …"""
    start: bytes = b""
    """… unless there is a snapshot to begin at …"""
    begun: int = 0
    """… after so many control steps."""
    keys: tuple[tuple[int, ...], ...]
    """Whole numbers that name each episode; they seed its noise."""
    hold: int
    """Control steps for which an action is held."""
    noise: bool = True
    """False: the mean action."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """A chunk that a teacher is asked for."""

    teacher: PlainTeacher
    """Whose advice it is, without noise."""
    horizon: int
    """Actions of the chunk."""
    hold: int
    """Control steps for which an action is held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Practised:
    """What came of it; N decisions in all, episode after episode."""

    begun: int
    """Control steps before each episode."""
    truth: np.ndarray
    """Before each decision (N, n) float32."""
    action: np.ndarray
    """What was decided, before any limit (N, action_dim) float32."""
    log_prob: np.ndarray
    """(N,) float32."""
    lengths: np.ndarray
    """Decisions of each episode (G,)."""
    steps: np.ndarray
    """Control steps of each episode, without those before it (G,)."""
    success: np.ndarray
    """(G,) bool."""


def practise(task: Practice, begin: Callable[[], None], execute: Execute, read: Read) -> Practised:
    """Run a group of episodes.

    Args:
        task: What to run.
        begin: Goes to the beginning.
        execute: Executes.
        read: Tells the truth.
    """
    truths, actions, log_probs, ends = [], [], [], []
    for key in task.keys:
        begin()
        random = np.random.default_rng(key)
        first = len(truths)
        while True:
            truth = read()
            action = mean = task.teacher.mean(truth)
            if task.noise:
                noise = random.standard_normal(len(mean), np.float32)
                action = (mean + task.teacher.std * noise).astype(np.float32)
            truths.append(truth)
            actions.append(action)
            log_probs.append(task.teacher.log_prob(action, mean))
            step = execute(np.repeat(task.teacher.limited(action)[None], task.hold, 0))
            if step.done:
                break
        ends.append((len(truths) - first, step.steps - task.begun, step.success))
    lengths, steps, success = zip(*ends, strict=True)
    return Practised(
        begun=task.begun,
        truth=np.stack(truths),
        action=np.stack(actions),
        log_prob=np.array(log_probs, np.float32),
        lengths=np.array(lengths),
        steps=np.array(steps),
        success=np.array(success),
    )


def advise(advice: Advice, execute: Execute, read: Read) -> tuple[np.ndarray, np.ndarray]:
    """Return what a teacher would do from here on, and which of it happens before the end.

    Args:
        advice: What is asked for.
        execute: Executes; the caller goes back to where this began.
        read: Tells the truth.

    Returns:
        (horizon, action_dim) float32, and (horizon,) bool.
    """
    chunk: list[np.ndarray] = []
    while len(chunk) < advice.horizon:
        action = advice.teacher.limited(advice.teacher.mean(read()))
        held = [action] * min(advice.hold, advice.horizon - len(chunk))
        chunk += held
        if execute(np.stack(held)).done:
            break
    valid = np.arange(advice.horizon) < len(chunk)
    chunk += [np.zeros_like(chunk[0])] * (advice.horizon - len(chunk))
    return np.stack(chunk), valid
