"""Declaration of a node graph: processes, their parameters and common settings.

This module does not import ROS, so a graph can be declared and checked on any machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from z1_ros.config import flatten
from z1_ros.errors import ConfigError
from z1_ros.graph.dds import Discovery

LogLevel = Literal["debug", "info", "warn", "error", "fatal"]
"""Least severe message that is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSpec:
    """One process."""

    name: str
    """Name of the node, of its executable and of its module in ``z1_ros.nodes``."""
    parameters: Mapping[str, object]
    lifecycle: bool = False
    """Whether the node has to be configured and activated."""
    image_bytes: int = 0
    """Size of the largest image that the node publishes [bytes]."""
    remap: Mapping[str, str] = field(default_factory=dict)
    """Topic name in the node -> topic name in the graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """The processes of a graph."""

    nodes: tuple[NodeSpec, ...]
    namespace: str = ""
    """Namespace of every node."""
    log_level: LogLevel = "info"
    params_file: str = ""
    """YAML file with parameter deviations for all nodes; empty for none."""
    autostart: bool = True
    """Configure and activate the lifecycle nodes at once."""
    discovery: Discovery = "auto"
    """Which machines can discover the nodes."""
    fastdds_profile: str = "auto"
    """Fast DDS profile: a file, empty for none, auto for a profile of z1_ros if one is needed."""
    respawn: bool = False
    """Whether ROS 2 launch restarts a node that ended; otherwise the whole graph ends if one node
    ends."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a given file does not exist."""
        if self.params_file and not Path(self.params_file).is_file():
            raise ConfigError(f"no params_file at {self.params_file}")
        if self.fastdds_profile not in ("", "auto") and not Path(self.fastdds_profile).is_file():
            raise ConfigError(f"no fastdds_profile at {self.fastdds_profile}")


def known_parameters(defaults: object, parameters: Mapping[str, object]) -> Mapping[str, object]:
    """Return ``parameters`` after checking that each is in ``defaults`` or is use_sim_time."""
    for name in parameters:
        if name not in flatten(defaults) and name != "use_sim_time":
            raise ConfigError(f"{type(defaults).__name__} has no {name!r}")
    return parameters
