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
        teacher, horizon = wanted.teacher, wanted.horizon
        here, guard = self.env.snapshot(), self.guard
        self.guard = guard.twin() if guard is not None else None
        chunk: list[np.ndarray] = []
        try:
            while len(chunk) < horizon:
                action = teacher.limited(teacher.mean(self._privileged_state()))
                held = [action] * min(wanted.hold_steps, horizon - len(chunk))
                chunk += held
                if self.execute(np.stack(held)).done:
                    break
        finally:
            self.guard = guard
            self.env.restore(here)
        valid = np.arange(horizon) < len(chunk)
        chunk += [np.zeros_like(chunk[0])] * (horizon - len(chunk))
        return np.stack(chunk), valid

    def _roll_out(self, request: TeacherRequest) -> TeacherRollouts:
        """Run a teacher's rollouts, each from the same state."""
        teacher, start = request.teacher, request.begin or 0
        if isinstance(start, int):
            self.begin(start)
            start = self.env.snapshot()
        states: list[np.ndarray] = []
        actions, log_probs, ends = [], [], []
        for key in request.keys:
            self.begin(start)
            random = np.random.default_rng(key)
            first = len(states)
            while True:
                privileged = self._privileged_state()
                action = mean = teacher.mean(privileged)
                if request.noise:
                    drawn = random.standard_normal(len(mean), np.float32)
                    action = (mean + teacher.std * drawn).astype(np.float32)
                states.append(privileged)
                actions.append(action)
                log_probs.append(teacher.log_prob(action, mean))
                held = np.repeat(teacher.limited(action)[None], request.hold_steps, 0)
                step = self.execute(held)
                if step.done:
                    break
            ends.append((len(states) - first, step.steps - request.steps_before, step.success))
        self._over = True  # the next request must begin an episode
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
