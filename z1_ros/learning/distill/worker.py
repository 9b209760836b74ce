"""The environment worker of privileged distillation: it reads privileged simulator state.

It handles the requests of ``EnvWorker`` and two additional ones, so the general rollout code does
not depend on the teacher.
"""

from dataclasses import dataclass, replace

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.learning.distill.numpy_teacher import (
    Relabel,
    TeacherRequest,
    TeacherRollouts,
    relabel,
    roll_out,
)
from z1_ros.learning.rollout.env_worker import EnvWorker, Reply, Request
from z1_ros.sim.env import PrivilegedEnv
from z1_ros.types import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivilegedRequest(Request):
    """A ``Request`` whose reply may also contain privileged state and the teacher's chunk."""

    relabel: Relabel | None = None
    """Relabel the current state before the actions are executed. The simulation is restored
    afterwards."""
    record: bool = False
    """Whether the reply contains the privileged state before each action."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivilegedReply(Reply):
    """Result of a ``PrivilegedRequest``."""

    relabelled: tuple[np.ndarray, np.ndarray] | None = None
    """The teacher's chunk (horizon, action_dim), and which of its actions were executed before the
    episode ended (horizon,) bool; None if it was not requested."""
    privileged: np.ndarray | None = None
    """Privileged state before each executed action (k, n) float32; None if not requested."""


class PrivilegedWorker(EnvWorker):
    """An environment worker that reads privileged state."""

    _recorded: list[np.ndarray] | None = None

    def handle(self, request: Request) -> Reply:
        """Execute a request and return its reply; raises ConfigError without privileged state."""
        if isinstance(request, TeacherRequest):
            return self._roll_out(request)
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
        """Execute actions (k, action_dim), and record the state before each action if requested."""
        if self._recorded is None:
            return super().execute(actions)
        for action in actions:
            self._recorded.append(self._privileged_state())
            step = super().execute(action[None])
            if step.done:
                break
        return replace(step, consumed=len(self._recorded))

    def _privileged_state(self) -> np.ndarray:
        if not isinstance(self.env, PrivilegedEnv):
            raise ConfigError(
                "this environment gives no privileged state, only what a robot sees; use one that "
                "runs in-process"
            )
        return self.env.privileged_state()

    def _relabel(self, wanted: Relabel) -> tuple[np.ndarray, np.ndarray]:
        """Let the teacher act for one chunk, then restore the environment and the guard."""
        here, guard = self.env.snapshot(), self.guard
        self.guard = guard.twin() if guard is not None else None
        try:
            return relabel(wanted, self.execute, self._privileged_state)
        finally:
            self.guard = guard
            self.env.restore(here)

    def _roll_out(self, request: TeacherRequest) -> TeacherRollouts:
        start = request.begin or 0
        if isinstance(start, int):
            self.begin(start)
            start = self.env.snapshot()
        rollouts = roll_out(
            request, lambda: self.begin(start), self.execute, self._privileged_state
        )
        self._over = True  # the next request must begin an episode
        return rollouts
