"""The command ``z1-import``."""

from z1_ros.command import run_command
from z1_ros.models.importing.config import ImportConfig
from z1_ros.models.importing.importer import main


def cli() -> int:
    """Parse the flags and run."""
    return run_command("z1-import", main, ImportConfig)
