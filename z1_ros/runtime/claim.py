"""Names that one process of this machine can hold at a time."""

import socket
from pathlib import Path


def claim(name: str) -> socket.socket | None:
    """Return something that holds ``name`` as long as it lives, or None if another process does.

    A Linux abstract socket: it vanishes with its process, however that ends, and it is shared
    by just those processes that share a network, as the ROS domains it stands for are.
    """
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0z1_ros {name}")
    except OSError:
        holder.close()
        return None
    return holder


def is_claimed(name: str) -> bool:
    """Say whether a process holds ``name``, without touching it."""
    sockets = Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()
    return any(line.endswith(f"@z1_ros {name}") for line in sockets)


def node_claim(domain_id: int, full_name: str) -> str:
    """Return the name that a running node holds."""
    return f"domain {domain_id} node {full_name}"
