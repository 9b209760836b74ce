"""The one interface of every simulator: kitchen and RoboCasa, in a process or behind ROS."""

from typing import Protocol, runtime_checkable

import numpy as np

from z1_ros.specs import Embodiment
from z1_ros.types import Observation, Step


class Env(Protocol):
    """One robot, one task, one scene at a time.

    ``step`` never renders and ``observe`` does: images cost more than physics, and a policy
    that acts in chunks needs them only when it plans again.
    """

    task: str
    """RoboCasa task class name, e.g. ``OpenDrawer``."""
    embodiment: Embodiment
    """Fields and order of the actions that ``step`` takes."""
    horizon: int
    """Control steps after which an episode is over."""
    seed: int
    """Seed of the current scene, also of one that a snapshot brought."""

    @property
    def instruction(self) -> str:
        """What to do in the current scene, in words."""
        ...

    @property
    def scene_id(self) -> str:
        """Hash of task, settings, seed and versions: equal ids mean equal scenes."""
        ...

    def reset(self, seed: int) -> None:
        """Build the scene that belongs to ``seed`` and go to its first instant."""
        ...

    def step(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim), one control step each; stop early when done.

        Raises:
            ActionError: Wrong shape or not finite; nothing is executed.
        """
        ...

    def observe(self) -> Observation:
        """Render the cameras and read the robot's state at the present instant."""
        ...

    def read_state(self) -> Observation:
        """As ``observe``, but without rendering: ``images`` is empty."""
        ...

    def snapshot(self) -> bytes:
        """Return everything needed to continue from here, bit for bit."""
        ...

    def restore(self, data: bytes) -> None:
        """Go back to a snapshot of the same scene, taken in this or another process.

        Raises:
            SnapshotMismatch: It comes from another backend, version or scene.
        """
        ...

    def close(self) -> None:
        """Free the OpenGL context; further calls are errors."""
        ...


@runtime_checkable
class PrivilegedEnv(Protocol):
    """An ``Env`` that also gives privileged state; only a simulator in this process can."""

    def privileged_state(self) -> np.ndarray:
        """Return what a privileged teacher sees in training, and a policy never (n,) float32."""
        ...


@runtime_checkable
class RenderedEnv(Protocol):
    """An ``Env`` with images for people; only a simulator in this process can give them."""

    def render(self, camera: str, height: int, width: int) -> np.ndarray:
        """Return one camera's (height, width, 3) uint8 RGB, upright."""
        ...
