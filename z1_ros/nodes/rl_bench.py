"""``z1-bench rl`` with every way to reach an environment: in processes here, or over ROS."""

from typing import Any

from z1_ros.rl.bench import Opener, RlBenchConfig
from z1_ros.rl.bench import main as measure
from z1_ros.rl.lanes import local_lanes

__all__ = ["RlBenchConfig", "main"]


def main(config: RlBenchConfig) -> dict[str, Any]:
    """Measure, print a table, return the figures."""
    openers: dict[str, Opener] = {"inproc": local_lanes}
    if "ros" in config.through:
        # ROS is imported where it is used, so that rollouts in-process need none of it.
        from z1_ros.nodes.ros_lanes import ros_lanes

        openers["ros"] = ros_lanes(config.bundle)
    return measure(config, openers)
