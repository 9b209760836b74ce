"""The command ``z1-sft``."""

from z1_ros.command import run_command
from z1_ros.learning.sft.train import SFTConfig, main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-sft", main, SFTConfig)
