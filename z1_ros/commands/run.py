"""The command ``z1-run``."""

from z1_ros.command import run_command
from z1_ros.graph.runner import RunnerConfig, main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-run", main, RunnerConfig)
