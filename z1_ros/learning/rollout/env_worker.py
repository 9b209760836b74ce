"""One environment behind a small message protocol: send a request, get one reply.

``EnvWorker`` is a plain class, so whatever can call a method can host it: a local process
(``env_pool.py``) as well as an actor of a distributed engine. A method that needs more of an
environment brings a worker of its own with messages of its own (``learning/distill/worker.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.runtime.guard import Guard, GuardConfig
from z1_ros.sim.env import Env
from z1_ros.types import Observation, Step


class Message(Protocol):
    """What a pool of workers has to know of a request, whatever its worker makes of it."""

    @property
    def begins(self) -> bool:
        """Whether nothing that was requested before matters for this one."""
        ...

    def to_replay(self) -> "Message":
        """Return a request that brings another process to the same point, and wants nothing."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """Go to the start of a scene, or to a snapshot of one."""

    seed: int = 0
    """Scene seed; not used with a snapshot."""
    snapshot: bytes = b""
    """Where to continue; empty: the start of the scene."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What one environment shall do, in this order."""

    begin: Begin | None = None
    """Go here first."""
    actions: np.ndarray | None = None
    """Then execute these (k, action_dim)."""
    observe: bool = False
    """Then, unless the episode is over, render and read the state."""
    snapshot: bool = False
    """And, unless it is over, take a snapshot."""

    @property
    def begins(self) -> bool:
        """Whether nothing that was requested before matters for this one."""
        return self.begin is not None

    def to_replay(self) -> "Request":
        """Return a request that brings another process to the same point, and wants nothing."""
        return replace(self, observe=False, snapshot=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came of a request."""

    step: Step | None = None
    """Outcome of the actions, if there were any."""
    observation: Observation | None = None
    """The present, if it was asked for and the episode continues."""
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
        self.env = make_env()
        self.guard = Guard(self.env.embodiment, GuardConfig()) if guard else None
        self._over = True

    def handle(self, request: Request) -> Reply:
        """Do what a request says.

        Raises:
            ConfigError: Actions before the first ``begin``.
            ActionError, SnapshotMismatch, SeedError: As the environment's.
        """
        if request.begin is not None:
            self.begin(request.begin)
        elif self._over:
            raise ConfigError("the episode is over or was never begun; a request must begin one")
        step = None
        if request.actions is not None:
            step = self.execute(request.actions)
            self._over = step.done
        running = not self._over
        return Reply(
            step=step,
            observation=self.env.observe() if request.observe and running else None,
            snapshot=self.env.snapshot() if request.snapshot and running else b"",
        )

    def begin(self, begin: Begin) -> None:
        """Go to the start of a scene, or to a snapshot."""
        if begin.snapshot:
            self.env.restore(begin.snapshot)
        else:
            self.env.reset(begin.seed)
        # Over ROS a restored scene is a new episode to the guard, so it is one here.
        if self.guard is not None:
            self.guard.new_episode()
        self._over = False

    def end(self) -> None:
        """Let nothing follow but a request that begins."""
        self._over = True

    def execute(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim) through the guard."""
        if self.guard is not None:
            actions = np.stack([self.guard.apply(action) for action in actions])
        return self.env.step(actions)

    def close(self) -> None:
        """Free the environment."""
        self.env.close()
