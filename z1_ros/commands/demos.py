"""``z1-demos``: record demonstrations of the scripted experts."""

from z1_ros.learning.sft.demos import main

__all__ = ["main"]
