"""``z1-ablate``: training with parts of Z-1 changed one at a time."""

from z1_ros.learning.analysis.ablate import main

__all__ = ["main"]
