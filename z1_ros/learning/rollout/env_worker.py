"""One environment behind a small message protocol: send a request, get one reply.

A training method that needs more from an environment defines its own worker and messages
(``learning/distill/worker.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.runtime.guard import Guard, GuardConfig
from z1_ros.sim.env import Env
from z1_ros.types import Observation, Step

Begin = int | bytes
"""Start of an episode: the seed of a scene, or a snapshot to restore."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Steps that one environment shall execute, in the order of the fields."""

    begin: Begin | None = None
    """Start of the episode; None: continue the current episode."""
    actions: np.ndarray | None = None
    """Actions to execute (k, action_dim); None: none."""
    observe: bool = False
    """Whether to return an observation, unless the episode is over."""
    snapshot: bool = False
    """Whether to return a snapshot, unless the episode is over."""

    def to_replay(self) -> "Request":
        """Return a request that repeats the actions in another process, without any output."""
        return Request(begin=self.begin, actions=self.actions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """Result of a request."""

    step: Step | None = None
    """Result of the actions; None if there were none."""
    observation: Observation | None = None
    """Current observation; None if it was not requested or the episode is over."""
    snapshot: bytes = b""
    """Current snapshot; empty if it was not requested or the episode is over."""


class EnvWorker:
    """An environment whose actions pass a guard, as in the node graph."""

    def __init__(self, make_env: Callable[[], Env], *, guard: bool = True):
        """Make the environment; it needs no ``guard`` behind ROS, where guard_node is one."""
        self.env = make_env()
        self.guard = Guard(self.env.embodiment, GuardConfig()) if guard else None
        self._over = True

    def handle(self, request: Request) -> Reply:
        """Execute a request and return its reply.

        Raises:
            ConfigError: The request does not begin an episode, and none is running.
            ActionError, SnapshotMismatch, SeedError: Raised by the environment.
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
        """Reset the environment to the start of a scene, or restore a snapshot."""
        if isinstance(begin, bytes):
            self.env.restore(begin)
        else:
            self.env.reset(begin)
        # Over ROS, the guard treats a restored scene as a new episode; do the same here.
        if self.guard is not None:
            self.guard.new_episode()
        self._over = False

    def execute(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim) through the guard."""
        if self.guard is not None:
            actions = np.stack([self.guard.apply(action) for action in actions])
        return self.env.step(actions)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()
