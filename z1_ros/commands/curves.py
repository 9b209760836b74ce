"""``z1-curves``: a picture of training runs."""

from z1_ros.learning.analysis.curves import main

__all__ = ["main"]
