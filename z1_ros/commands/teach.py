"""``z1-teach``: training by a privileged teacher."""

from z1_ros.learning.distill.train import main

__all__ = ["main"]
