"""Names that only one process of this machine can reserve at a time."""

import socket
from pathlib import Path


def claim(name: str) -> socket.socket | None:
    """Reserve ``name``; return the socket that keeps it reserved until it is closed.

    None is returned if another process has reserved it. The socket is a Linux abstract socket. It
    disappears when its process ends for any reason. Its name is visible in one network namespace,
    like the ports of a ROS domain.
    """
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0z1_ros {name}")
    except OSError:
        holder.close()
        return None
    return holder


def is_claimed(name: str) -> bool:
    """Return whether a process has reserved ``name``, without reserving it."""
    sockets = Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()
    return any(line.endswith(f"@z1_ros {name}") for line in sockets)


def node_claim(domain_id: int, full_name: str) -> str:
    """Return the name that a running node reserves."""
    return f"domain {domain_id} node {full_name}"
