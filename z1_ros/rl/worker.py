"""One environment behind a small message protocol: ask, and get one answer.

``EnvWorker`` is a plain class, so whatever can call a method can host it: a local process
(``z1_ros.rl.lanes``) as well as an actor of a distributed engine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.runtime.guard import Guard, GuardConfig
from z1_ros.sim.env import Env
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came of it."""

    step: Step | None = None
    """Outcome of the actions, if there were any."""
    observation: Observation | None = None
    """The present, if it was asked for and the episode goes on."""
    snapshot: bytes = b""
    """The same; empty if not."""


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
            ConfigError: Actions before the first ``begin``.
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
        return Reply(
            step=step,
            observation=self._env.observe() if request.observe and goes_on else None,
            snapshot=self._env.snapshot() if request.snapshot and goes_on else b"",
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
