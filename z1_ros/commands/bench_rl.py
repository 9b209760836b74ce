"""``z1-bench rl`` with every way to reach an environment: in processes here, or over ROS."""

from typing import Any

from z1_ros.benchmarks.rollouts import Opener, RlBenchConfig
from z1_ros.benchmarks.rollouts import main as measure
from z1_ros.learning.rollout.env_pool import local_workers

__all__ = ["RlBenchConfig", "main"]


def main(config: RlBenchConfig) -> dict[str, Any]:
    """Measure, print a table, return the figures."""
    openers: dict[str, Opener] = {"inproc": local_workers}
    if "ros" in config.through:
        # ROS is imported where it is used, so that rollouts in-process need none of it.
        from z1_ros.graph.ros_workers import ros_workers

        openers["ros"] = ros_workers(config.bundle)
    return measure(config, openers)
