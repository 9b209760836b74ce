"""The command ``z1-demos``."""

from z1_ros.command import run_command
from z1_ros.learning.sft.demos import DemosConfig, main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-demos", main, DemosConfig)
