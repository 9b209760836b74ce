"""``z1-curves``: plot the metrics of training runs."""

from z1_ros.learning.analysis.curves import main

__all__ = ["main"]
