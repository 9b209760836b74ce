"""The command ``z1-export``."""

from z1_ros.command import run_command
from z1_ros.models.bundle.export import ExportConfig, main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-export", main, ExportConfig)
