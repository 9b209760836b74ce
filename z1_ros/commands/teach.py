"""The command ``z1-teach``."""

from z1_ros.command import run_command
from z1_ros.learning.distill.config import DistillConfig
from z1_ros.learning.distill.train import main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-teach", main, DistillConfig)
