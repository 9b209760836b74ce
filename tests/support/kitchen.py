"""Kitchens for tests: small images, at the start of a scene."""

from z1_ros.sim.kitchen import KitchenConfig, KitchenEnv
from z1_ros.specs import PANDA, Embodiment

SMALL = KitchenConfig(image_size=48)


def kitchen(
    task: str, seed: int = 0, embodiment: Embodiment = PANDA, config: KitchenConfig = SMALL
) -> KitchenEnv:
    """Return a kitchen in which the scene of ``seed`` has just begun."""
    env = KitchenEnv(task, embodiment, config)
    env.reset(seed)
    return env
