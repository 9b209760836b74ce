"""The command ``z1-curves``."""

from z1_ros.command import run_command
from z1_ros.learning.analysis.curves import CurvesConfig, main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-curves", main, CurvesConfig)
