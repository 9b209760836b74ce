"""How far a graph's processes are seen, and through which Fast DDS profile: environment variables.

By default only this machine sees a graph: whoever reaches its topics can publish ``action``, or
have the policy load another model.
"""

import os
import sys
from pathlib import Path
from typing import Literal

from z1_ros.errors import ConfigError

Discovery = Literal["auto", "localhost", "subnet"]
"""Who can find a graph: this machine, the network, or (auto) what the environment says of it, which
is this machine where it says nothing."""

BIG_IMAGE_BYTES = 150_000
"""Above this, images are lost without the Fast DDS profile (measured: 224 x 224 x 3 is safe)."""

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_PEERS = ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")
_PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Fast DDS 2 reads the first, Fast DDS 3 the second."""


def dds_env(discovery: Discovery, profile: str = "auto", image_bytes: int = 0) -> dict[str, str]:
    """Return the variables that a process of a graph needs.

    Args:
        discovery: Who can find it.
        profile: A Fast DDS profile, empty for none, or ``auto``: the environment's, else one of
            ours where ``discovery`` or ``image_bytes`` needs it.
        image_bytes: Size of the largest image that the process publishes [bytes].
    """
    if profile == "auto":
        profile = _own_profile(discovery, image_bytes)
    path = str(Path(profile).resolve())
    return _range_env(discovery) | (dict.fromkeys(_PROFILES, path) if profile else {})


def describe(discovery: Discovery, opens: str = "discovery:=subnet") -> str:
    """Return one sentence on who can find a graph; ``opens`` is what opens it to the network."""
    if _is_local(discovery):
        return f"only this machine sees the graph; {opens} opens it to the network"
    if discovery == "subnet":
        return "the whole network sees the graph, and can publish action or exchange the model"
    said = [f"{name}={os.environ[name]}" for name in (RANGE, *_PEERS) if os.environ.get(name)]
    return f"who sees the graph is up to {', '.join(said)}"


def shared_file(name: str) -> Path:
    """Return a file of the package's share folder, or of the checkout it runs from.

    Raises:
        ConfigError: It is in none of the places that the kinds of installation use.
    """
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(":"), sys.prefix]
    places = [Path(__file__).resolve().parents[2] / name]
    places += [Path(prefix) / "share" / "z1_ros" / name for prefix in prefixes if prefix]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"{name} of z1_ros is at none of: {', '.join(map(str, places))}")


def _is_local(discovery: Discovery) -> bool:
    """Whether only this machine is meant to see a graph."""
    if discovery != "auto":
        return discovery == "localhost"
    if any(os.environ.get(name) for name in _PEERS):
        return False
    return os.environ.get(RANGE, "").upper() in ("", "LOCALHOST")


def _range_env(discovery: Discovery) -> dict[str, str]:
    if _is_local(discovery):
        env = {RANGE: "LOCALHOST"}
    else:
        env = {RANGE: "SUBNET"} if discovery == "subnet" else {}
    if env and os.environ.get("ROS_LOCALHOST_ONLY"):
        env["ROS_LOCALHOST_ONLY"] = ""  # deprecated, but it wins where it is set
    return env


def _own_profile(discovery: Discovery, image_bytes: int) -> str:
    """Return the profile of ours that is needed; empty if none is, or the user has chosen one."""
    if any(os.environ.get(name) for name in _PROFILES):
        return ""
    # A 16 MB segment per process only where it is needed: a container's /dev/shm has 64 MB.
    large = image_bytes > BIG_IMAGE_BYTES
    if _is_local(discovery):
        # LOCALHOST alone lets in who names this machine as a static peer.
        name = "fastdds_localhost_large.xml" if large else "fastdds_localhost.xml"
    elif large:
        name = "fastdds.xml"
    else:
        return ""
    return str(shared_file(f"config/{name}"))
