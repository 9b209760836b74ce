"""``z1-sft``: supervised training from demonstrations."""

from z1_ros.learning.sft.train import main

__all__ = ["main"]
