"""The common interface of all simulators, in this process or behind ROS."""

from typing import Protocol, runtime_checkable

import numpy as np

from z1_ros.specs import Embodiment
from z1_ros.types import Observation, Step


class Env(Protocol):
    """An environment with one robot, one task, and one scene at a time.

    ``observe`` renders and ``step`` does not: images need more time than physics, and a policy that
    acts in chunks needs them only when it replans.
    """

    task: str
    """RoboCasa task class name, e.g. ``OpenDrawer``."""
    embodiment: Embodiment
    """Fields and order of the actions that ``step`` takes."""
    horizon: int
    """Control steps after which an episode is over."""
    seed: int
    """Seed of the current scene, also if it was restored from a snapshot."""

    @property
    def instruction(self) -> str:
        """Instruction of the current scene, as text."""

    @property
    def scene_id(self) -> str:
        """Hash of task, settings, seed and versions: equal ids mean equal scenes."""

    def reset(self, seed: int) -> None:
        """Build the scene of ``seed`` and set its initial state."""

    def step(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim), one control step each; stop early when done.

        Raises:
            ActionError: An action has a wrong shape or is not finite; no action is executed.
        """

    def observe(self) -> Observation:
        """Render the cameras and read the robot's current state."""

    def read_state(self) -> Observation:
        """Return an observation without rendering: ``images`` is empty."""

    def snapshot(self) -> bytes:
        """Return the whole state of the simulation, from which it continues bit for bit."""

    def restore(self, data: bytes) -> None:
        """Restore a snapshot of the same task and settings, taken in this or another process.

        Raises:
            SnapshotMismatch: The snapshot is damaged, or comes from another backend, version, task
                or settings; the current state does not change.
        """

    def close(self) -> None:
        """Free the OpenGL context; further calls raise errors."""


@runtime_checkable
class PrivilegedEnv(Protocol):
    """An ``Env`` that also provides privileged state; it must run in this process."""

    def privileged_state(self) -> np.ndarray:
        """Return the privileged state (n,) float32, for teachers in training and never a policy."""


@runtime_checkable
class RenderedEnv(Protocol):
    """An ``Env`` that also renders images for people; it must run in this process."""

    def render(self, camera: str, height: int, width: int) -> np.ndarray:
        """Return the upright image of one camera (height, width, 3) uint8 RGB."""
