"""The command ``z1-combine``."""

from z1_ros.command import run_command
from z1_ros.models.bundle.combine import CombineConfig, main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-combine", main, CombineConfig)
