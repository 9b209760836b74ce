"""One environment behind a small message protocol: ask, and get one answer.

``EnvWorker`` is a plain class, so whatever can call a method can host it: a local process
(``z1_ros.learning.rollout.env_pool``) as well as an actor of a distributed engine.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.learning.distill.practice import Advice, Practice, Practised, advise, practise
from z1_ros.runtime.guard import Guard, GuardConfig
from z1_ros.sim.env import Env, PrivilegedEnv
from z1_ros.types import Observation, Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """Go to the start of a scene, or to a snapshot of one."""

    seed: int = 0
    """Scene seed; not used with a snapshot."""
    snapshot: bytes = b""
    """Where to go on; empty: the start of the scene."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What one environment is asked to do, in this order."""

    begin: Begin | None = None
    """Go here first."""
    actions: np.ndarray | None = None
    """Then execute these (k, action_dim)."""
    observe: bool = False
    """Then, unless the episode is over, render and read the state."""
    snapshot: bool = False
    """And, unless it is over, take a snapshot."""
    truth: bool = False
    """Tell the simulator's truth before each of the actions."""
    advice: Advice | None = None
    """Before the actions, ask what a teacher would do; it leaves no trace."""
    practice: Practice | None = None
    """Nothing but this: let a teacher practise; no episode goes on after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came of it."""

    step: Step | None = None
    """Outcome of the actions, if there were any."""
    observation: Observation | None = None
    """The present, if it was asked for and the episode goes on."""
    snapshot: bytes = b""
    """The same; empty if not."""
    truth: np.ndarray | None = None
    """The simulator's truth before each executed action (k, n) float32, if it was asked for."""
    advised: tuple[np.ndarray, np.ndarray] | None = None
    """What the teacher would have done (horizon, action_dim), and which of it before the end."""
    practised: Practised | None = None
    """What came of the practice."""


class EnvWorker:
    """An environment and the guard before it, as in the node graph."""

    def __init__(self, make_env: Callable[[], Env], *, guard: bool = True):
        """Make the environment.

        Args:
            make_env: Called once.
            guard: Put a guard before it; an environment behind ROS has guard_node there.
        """
        self._env = make_env()
        self._guard = Guard(self._env.embodiment, GuardConfig()) if guard else None
        self._over = True

    def handle(self, request: Request) -> Reply:
        """Do what is asked.

        Raises:
            ConfigError: Actions before the first ``begin``, or truth where there is none.
            ActionError, SnapshotMismatch, SeedError: As the environment's.
        """
        if request.practice is not None:
            return Reply(practised=self._practise(request.practice))
        if request.begin is not None:
            self._begin(request.begin)
        elif self._over:
            raise ConfigError("the episode is over or was never begun; a request must begin one")
        advised = self._advise(request.advice) if request.advice is not None else None
        step, truths = None, []
        if request.actions is not None:
            # Truth is told action by action; what comes of them is the same.
            parts = np.split(request.actions, len(request.actions)) if request.truth else None
            for actions in parts or [request.actions]:
                truths += [self._truth()] if request.truth else []
                step = self._execute(actions)
                if step.done:
                    break
            if request.truth:
                step = replace(step, consumed=len(truths))
            self._over = step.done
        goes_on = not self._over
        return Reply(
            step=step,
            truth=np.stack(truths) if truths else None,
            advised=advised,
            observation=self._env.observe() if request.observe and goes_on else None,
            snapshot=self._env.snapshot() if request.snapshot and goes_on else b"",
        )

    def _execute(self, actions: np.ndarray) -> Step:
        if self._guard is not None:
            actions = np.stack([self._guard.apply(action) for action in actions])
        return self._env.step(actions)

    def _truth(self) -> np.ndarray:
        if not isinstance(self._env, PrivilegedEnv):
            raise ConfigError(
                "this environment tells only what a robot sees, not the simulator's truth; use one "
                "that runs in-process"
            )
        return self._env.truth()

    def _advise(self, advice: Advice) -> tuple[np.ndarray, np.ndarray]:
        """Let a teacher act from here for a chunk, and come back."""
        here, guard = self._env.snapshot(), self._guard
        self._guard = guard.twin() if guard is not None else None
        try:
            return advise(advice, self._execute, self._truth)
        finally:
            self._guard = guard
            self._env.restore(here)

    def _practise(self, practice: Practice) -> Practised:
        if practice.start:
            start = Begin(snapshot=practice.start)
        else:
            self._begin(Begin(seed=practice.seed))
            start = Begin(snapshot=self._env.snapshot())
        practised = practise(practice, lambda: self._begin(start), self._execute, self._truth)
        self._over = True
        return practised

    def _begin(self, begin: Begin) -> None:
        if begin.snapshot:
            self._env.restore(begin.snapshot)
        else:
            self._env.reset(begin.seed)
        # Over ROS a restored scene is a new episode to the guard, so it is one here.
        if self._guard is not None:
            self._guard.new_episode()
        self._over = False

    def close(self) -> None:
        """Free the environment."""
        self._env.close()
