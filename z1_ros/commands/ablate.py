"""The command ``z1-ablate``."""

from z1_ros.command import run_command
from z1_ros.learning.analysis.ablate import AblateConfig, main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-ablate", main, AblateConfig)
