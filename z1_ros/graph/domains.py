"""ROS domain ids: the one set in the environment, or an unused one for a private graph."""

import os
import random
import socket

from z1_ros.errors import ConfigError, GraphError
from z1_ros.runtime.claim import claim

MAX_DOMAIN_ID = 232
"""Highest domain id; ports of a higher domain would exceed 65535 (RTPS 9.6.2.3)."""


class FreeDomain:
    """A ROS domain that no process of this machine uses, reserved until ``close``."""

    def __init__(self) -> None:
        """Choose and reserve an unused domain; raises GraphError if all are in use."""
        # Above 101, the ports of a domain overlap with the ephemeral ports of Linux.
        for domain_id in random.sample(range(1, 102), 101):
            claimed = claim(f"domain {domain_id}")
            if claimed is None:
                continue
            if not _domain_in_use(domain_id):
                self.id, self._claimed = domain_id, claimed
                return
            claimed.close()
        raise GraphError("all ROS domains from 1 to 101 are in use on this machine")

    def close(self) -> None:
        """Release the domain for other processes."""
        self._claimed.close()


def environment_domain_id() -> int:
    """Return ``ROS_DOMAIN_ID``, 0 if unset or empty as in ROS; raises ConfigError if not valid."""
    text = os.environ.get("ROS_DOMAIN_ID", "").strip() or "0"
    if not text.isdecimal() or int(text) > MAX_DOMAIN_ID:
        raise ConfigError(f"ROS_DOMAIN_ID is {text!r}, expected a number from 0 to {MAX_DOMAIN_ID}")
    return int(text)


def _domain_in_use(domain_id: int) -> bool:
    """Return whether a participant uses the first unicast ports of the domain (RTPS 9.6.2.3)."""
    for participant in range(3):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7400 + 250 * domain_id + 10 + 2 * participant))
            except OSError:
                return True
    return False
