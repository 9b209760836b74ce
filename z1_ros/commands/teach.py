"""``z1-teach``: training with a privileged teacher."""

from z1_ros.learning.distill.train import main

__all__ = ["main"]
