"""The embedded kitchen: RoboCasa's tasks in primitives, with MuJoCo and NumPy alone.

Its success rates say nothing about RoboCasa's.
"""

from z1_ros.sim.kitchen.config import KitchenConfig
from z1_ros.sim.kitchen.env import KitchenEnv
from z1_ros.sim.kitchen.experts import make_expert
from z1_ros.sim.kitchen.tasks import TASKS

__all__ = ["TASKS", "KitchenConfig", "KitchenEnv", "make_expert"]
