"""Environment variables that set the DDS discovery range and the Fast DDS profile of a graph.

By default only this machine can discover a graph, because any process that reaches its topics can
publish ``action`` or make the policy load another model.
"""

import os
import sys
from pathlib import Path
from typing import Literal

from z1_ros.errors import ConfigError

Discovery = Literal["auto", "localhost", "subnet"]
"""Which machines can discover a graph: this machine, the network, or (auto) the setting of
ROS_AUTOMATIC_DISCOVERY_RANGE; this machine if it is not set."""

BIG_IMAGE_BYTES = 150_000
"""Largest image [bytes] that arrives safely without a Fast DDS profile (measured: 224 x 224 x 3
is safe)."""

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_PEERS = ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")
_PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Variables with the profile's path: Fast DDS 2 reads the first, Fast DDS 3 the second."""


def dds_env(discovery: Discovery, profile: str = "auto", image_bytes: int = 0) -> dict[str, str]:
    """Return the environment variables that a process of a graph needs.

    ``profile`` is the path of a Fast DDS profile, empty for none, or ``auto``: the profile that the
    environment sets, otherwise one of z1_ros if ``discovery`` or ``image_bytes`` (size of the
    largest image that the process publishes) needs it.
    """
    if profile == "auto":
        profile = _own_profile(discovery, image_bytes)
    env = dict.fromkeys(_PROFILES, str(Path(profile).resolve())) if profile else {}
    if _is_local(discovery) or discovery == "subnet":
        env[RANGE] = "LOCALHOST" if _is_local(discovery) else "SUBNET"
        if os.environ.get("ROS_LOCALHOST_ONLY"):
            env["ROS_LOCALHOST_ONLY"] = ""  # deprecated, but it has priority if set
    return env


def describe(discovery: Discovery, opens: str = "discovery:=subnet") -> str:
    """Return one sentence that says which machines can discover a graph.

    ``opens`` is the launch argument or flag that makes the graph visible in the network.
    """
    if _is_local(discovery):
        return f"only this machine sees the graph; {opens} opens it to the network"
    if discovery == "subnet":
        return "the whole network sees the graph, and can publish action or exchange the model"
    said = [f"{name}={os.environ[name]}" for name in (RANGE, *_PEERS) if os.environ.get(name)]
    return f"who sees the graph is up to {', '.join(said)}"


def shared_file(name: str) -> Path:
    """Return the path of a file in the share folder or the source checkout; raises ConfigError."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(":"), sys.prefix]
    places = [Path(__file__).resolve().parents[2] / name]
    places += [Path(prefix) / "share" / "z1_ros" / name for prefix in prefixes if prefix]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"{name} of z1_ros is at none of: {', '.join(map(str, places))}")


def _is_local(discovery: Discovery) -> bool:
    if discovery != "auto":
        return discovery == "localhost"
    if any(os.environ.get(name) for name in _PEERS):
        return False
    return os.environ.get(RANGE, "").upper() in ("", "LOCALHOST")


def _own_profile(discovery: Discovery, image_bytes: int) -> str:
    """Return the path of the z1_ros profile to use; empty if the user set one or none is needed."""
    if any(os.environ.get(name) for name in _PROFILES):
        return ""
    # Use a 16 MB shared-memory segment per process only if needed: /dev/shm of a container has
    # 64 MB.
    large = image_bytes > BIG_IMAGE_BYTES
    if _is_local(discovery):
        # With LOCALHOST alone, a remote machine can still join by naming this one as static peer.
        name = "fastdds_localhost_large.xml" if large else "fastdds_localhost.xml"
    elif large:
        name = "fastdds.xml"
    else:
        return ""
    return str(shared_file(f"config/{name}"))
