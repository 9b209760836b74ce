"""The embedded kitchen: tasks of RoboCasa with primitive shapes, based on MuJoCo and NumPy only.

Success rates in this kitchen cannot be compared with those in RoboCasa.
"""

import os

try:
    import mujoco
except ImportError:
    raise
except Exception:  # a GL library may raise its own error types
    if "MUJOCO_GL" not in os.environ:
        raise
    # MUJOCO_GL names a GL library that is not installed. Physics works; rendering raises an error.
    _chosen = os.environ["MUJOCO_GL"]
    os.environ["MUJOCO_GL"] = "disable"
    import mujoco  # noqa: F401

    os.environ["MUJOCO_GL"] = _chosen

from z1_ros.sim.kitchen.config import KitchenConfig
from z1_ros.sim.kitchen.env import KitchenEnv
from z1_ros.sim.kitchen.experts import make_expert
from z1_ros.sim.kitchen.tasks import TASKS
from z1_ros.specs import Embodiment

__all__ = ["TASKS", "KitchenConfig", "KitchenEnv", "make_expert"]


def make_env(task: str, embodiment: Embodiment, image_size: int) -> KitchenEnv:
    """Make a kitchen environment, for the registry of simulators."""
    return KitchenEnv(task, embodiment, KitchenConfig(image_size=image_size))


def instruction_patterns(task: str) -> tuple[str, ...]:
    """Return the shell-style patterns that a task's instructions match in every scene."""
    return TASKS[task].instruction_patterns
