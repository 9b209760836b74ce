"""What a node graph is: processes, their parameters, how they belong together.

No ROS is imported here: a graph is declared, and its mistakes named, on any machine.
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
    """Its parameters."""
    lifecycle: bool = False
    """Whether it has to be configured and activated."""
    image_bytes: int = 0
    """Size of the largest image that it publishes [bytes]."""
    remap: Mapping[str, str] = field(default_factory=dict)
    """Other names for its topics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """The processes of a graph."""

    nodes: tuple[NodeSpec, ...]
    """The processes."""
    namespace: str = ""
    """Namespace of every node."""
    log_level: LogLevel = "info"
    """Least severe message that is shown."""
    params_file: str = ""
    """YAML file with parameter deviations for all nodes; empty for none."""
    autostart: bool = True
    """Configure and activate the lifecycle nodes at once."""
    discovery: Discovery = "auto"
    """Who can find the nodes."""
    fastdds_profile: str = "auto"
    """Fast DDS profile: a file, empty for none, auto for one of ours where it is needed."""
    respawn: bool = False
    """ROS 2's launch starts a node again that ended; otherwise each is required: if one ends,
    all end."""


def check_files(*, params_file: str, fastdds_profile: str) -> None:
    """Raise ConfigError if a file is given that does not exist."""
    if params_file and not Path(params_file).is_file():
        raise ConfigError(f"no params_file at {params_file}")
    if fastdds_profile not in ("", "auto") and not Path(fastdds_profile).is_file():
        raise ConfigError(f"no fastdds_profile at {fastdds_profile}")


def known_parameters(defaults: object, parameters: Mapping[str, object]) -> Mapping[str, object]:
    """Return ``parameters``; each must be a parameter of its node, or rclpy's use_sim_time."""
    for name in parameters:
        if name not in flatten(defaults) and name != "use_sim_time":
            raise ConfigError(f"{type(defaults).__name__} has no {name!r}")
    return parameters
