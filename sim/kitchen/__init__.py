"""The embedded kitchen: RoboCasa's tasks in primitives, with MuJoCo and NumPy alone.

Its success rates say nothing about RoboCasa's.
"""

import os

try:
    import mujoco
except ImportError:
    raise
except Exception:  # of a GL library, which has error types of its own
    if "MUJOCO_GL" not in os.environ:
        raise
    # MUJOCO_GL names a GL library that is not installed. Physics needs none; rendering will say so.
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
    """Return a kitchen for the registry of simulators."""
    return KitchenEnv(task, embodiment, KitchenConfig(image_size=image_size))


def instruction_patterns(task: str) -> tuple[str, ...]:
    """Return the shell-style patterns that a task's instructions match in every scene."""
    return TASKS[task].instruction_patterns
