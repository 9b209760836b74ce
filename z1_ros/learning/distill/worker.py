"""The environment worker of privileged distillation: it reads state that no policy may see.

It handles the requests of ``EnvWorker`` and two of its own, so rollouts know nothing of a teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.learning.distill.numpy_teacher import (
    NumpyTeacher,
    TeacherRollouts,
    relabel,
    roll_out,
)
from z1_ros.learning.rollout.env_worker import Begin, EnvWorker, Reply, Request
from z1_ros.sim.env import Env, PrivilegedEnv
from z1_ros.types import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Relabel:
    """Asks for the chunk that a teacher would execute in the present state."""

    teacher: NumpyTeacher
    """The teacher; it acts without noise."""
    horizon: int
    """Actions of the chunk."""
    hold_steps: int
    """Control steps for which an action is held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivilegedRequest(Request):
    """As ``Request``, with privileged state in the reply."""

    relabel: Relabel | None = None
    """Before the actions: relabel the present state. It leaves no trace."""
    record: bool = False
    """Return the privileged state before each action."""

    def to_replay(self) -> Request:
        """Return a request that brings another process to the same point, and wants nothing."""
        return Request(begin=self.begin, actions=self.actions)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivilegedReply(Reply):
    """What came of a ``PrivilegedRequest``."""

    relabelled: tuple[np.ndarray, np.ndarray] | None = None
    """The teacher's chunk (horizon, action_dim), and which of it precedes the end (horizon,)."""
    privileged: np.ndarray | None = None
    """State before each executed action (k, n) float32, if it was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRequest:
    """Asks for rollouts of a teacher from one state; the next request has to begin an episode."""

    teacher: NumpyTeacher
    """Acts."""
    seed: int = 0
    """Scene at whose start the rollouts begin, unless there is a snapshot."""
    start: bytes = b""
    """Snapshot at which they begin."""
    steps_before: int = 0
    """Control steps before the snapshot."""
    keys: tuple[tuple[int, ...], ...]
    """Whole numbers that name each rollout; they seed its noise."""
    hold_steps: int
    """Control steps for which an action is held."""
    noise: bool = True
    """False: the mean action."""

    @property
    def begins(self) -> bool:
        """Nothing that was requested before matters."""
        return True

    def to_replay(self) -> "TeacherRequest":
        """Return itself; nothing follows it within an episode."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherReply(Reply):
    """What came of a ``TeacherRequest``."""

    rollouts: TeacherRollouts
    """The rollouts."""


class PrivilegedWorker(EnvWorker):
    """An environment worker that reads privileged state."""

    def __init__(self, make_env: Callable[[], Env], *, guard: bool = True):
        """Make the environment; arguments as ``EnvWorker``'s."""
        super().__init__(make_env, guard=guard)
        self._recorded: list[np.ndarray] | None = None

    def handle(self, request: Request | TeacherRequest) -> Reply:
        """Do what a request says.

        Raises:
            ConfigError: As ``EnvWorker``'s, or the environment gives no privileged state.
        """
        if isinstance(request, TeacherRequest):
            return TeacherReply(rollouts=self._roll_out(request))
        if not isinstance(request, PrivilegedRequest):
            return super().handle(request)
        relabelled = self._relabel(request.relabel) if request.relabel else None
        self._recorded = [] if request.record else None
        try:
            reply = super().handle(request)
            recorded = np.stack(self._recorded) if self._recorded else None
        finally:
            self._recorded = None
        return PrivilegedReply(
            step=reply.step,
            observation=reply.observation,
            snapshot=reply.snapshot,
            relabelled=relabelled,
            privileged=recorded,
        )

    def execute(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim), one by one where the state before each is recorded."""
        if self._recorded is None:
            return super().execute(actions)
        consumed = 0
        for action in actions:
            self._recorded.append(self._privileged_state())
            step = super().execute(action[None])
            consumed += 1
            if step.done:
                break
        return Step(steps=step.steps, success=step.success, done=step.done, consumed=consumed)

    def _privileged_state(self) -> np.ndarray:
        if not isinstance(self.env, PrivilegedEnv):
            raise ConfigError(
                "this environment gives no privileged state, only what a robot sees; use one that "
                "runs in-process"
            )
        return self.env.privileged_state()

    def _relabel(self, wanted: Relabel) -> tuple[np.ndarray, np.ndarray]:
        """Let the teacher act from here for a chunk, and come back."""
        here, guard = self.env.snapshot(), self.guard
        self.guard = guard.twin() if guard is not None else None
        try:
            return relabel(
                wanted.teacher,
                self.execute,
                self._privileged_state,
                horizon=wanted.horizon,
                hold_steps=wanted.hold_steps,
            )
        finally:
            self.guard = guard
            self.env.restore(here)

    def _roll_out(self, request: TeacherRequest) -> TeacherRollouts:
        if request.start:
            start = Begin(snapshot=request.start)
        else:
            self.begin(Begin(seed=request.seed))
            start = Begin(snapshot=self.env.snapshot())
        rollouts = roll_out(
            request.teacher,
            request.keys,
            lambda: self.begin(start),
            self.execute,
            self._privileged_state,
            hold_steps=request.hold_steps,
            steps_before=request.steps_before,
            noise=request.noise,
        )
        self.end()
        return rollouts
