"""``z1-train``: Z-1's training, with environments in-process or in node graphs."""

from dataclasses import dataclass
from typing import Any

from z1_ros.errors import ConfigError
from z1_ros.learning.grpo import train
from z1_ros.learning.rollout.env_pool import local_workers


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(train.Z1Config):
    """Improve a policy on one task by Z-1's GRPO, in simulation."""

    attach: str = ""
    """Namespace of running graphs to use, e.g. those of train.launch.py, without the worker's
    number (``worker`` means /worker0, /worker1, …). It needs ``--through ros``. Empty: the command
    starts the graphs."""

    def __post_init__(self) -> None:
        train.Z1Config.__post_init__(self)
        if self.attach and self.through != "ros":
            raise ConfigError("attach names graphs of ROS nodes, so it needs --through ros")


def main(config: TrainConfig) -> dict[str, Any]:
    """Train, write the bundle and return the final metrics.

    Raises:
        Z1Error: The settings or the bundle are invalid, or training cannot continue.
    """
    if config.through == "inproc":
        return train.main(config, local_workers)
    # ROS is imported only here, so that in-process training works without ROS.
    from z1_ros.graph.ros_workers import ros_workers

    return train.main(config, ros_workers(config.bundle, config.attach))
