"""One environment behind a small message protocol: ask, and get one answer.

``EnvWorker`` is a plain class, so whatever can call a method can host it: a local process
(``z1_ros.rl.lanes``) as well as an actor of a distributed engine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.runtime.guard import Guard, GuardConfig
from z1_ros.sim.env import Env, TruthfulEnv
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
    """And read the simulator's truth, for a critic; it is read before the observation."""
    trials: np.ndarray | None = None
    """And try each of these (N, k, action_dim) from there, without leaving a trace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """What would come of some sequences of actions."""

    success: np.ndarray
    """The task would be reached (N,) bool."""
    over: np.ndarray
    """The episode would be over (N,) bool."""
    steps: np.ndarray
    """Actions that would be executed (N,) int64."""
    truth: np.ndarray
    """The simulator's truth afterwards (N, n) float32."""


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
    """The simulator's truth (n,) float32, if it was asked for and the episode goes on."""
    trials: Trials | None = None
    """The same, of what was tried."""


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
        if request.begin is not None:
            self._begin(request.begin)
        elif self._over:
            raise ConfigError("the episode is over or was never begun; a request must begin one")
        step = None
        if request.actions is not None:
            actions = request.actions
            if self._guard is not None:
                actions = np.stack([self._guard.apply(action) for action in actions])
            step = self._env.step(actions)
            self._over = step.done
        goes_on = not self._over
        tried = goes_on and request.trials is not None
        return Reply(
            step=step,
            truth=self._truth() if request.truth and goes_on else None,
            trials=self._try(request.trials) if tried else None,
            observation=self._env.observe() if request.observe and goes_on else None,
            snapshot=self._env.snapshot() if request.snapshot and goes_on else b"",
        )

    def _truth(self) -> np.ndarray:
        if not isinstance(self._env, TruthfulEnv):
            raise ConfigError(
                "this environment tells only what a robot sees, not the simulator's truth; use one "
                "that runs in-process"
            )
        return self._env.truth()

    def _try(self, trials: np.ndarray) -> Trials:
        """Execute each sequence from here, and come back."""
        here = self._env.snapshot()
        steps, truths = [], []
        for actions in trials:
            if self._guard is not None:
                twin = self._guard.twin()
                actions = np.stack([twin.apply(action) for action in actions])
            steps.append(self._env.step(actions))
            truths.append(self._truth())
            self._env.restore(here)
        return Trials(
            success=np.array([step.success for step in steps]),
            over=np.array([step.done for step in steps]),
            steps=np.array([step.consumed for step in steps]),
            truth=np.stack(truths),
        )

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
