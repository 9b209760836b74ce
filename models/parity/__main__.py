"""``python -m z1_ros.models.parity GOLDEN CHECKPOINT``: see ``z1_ros.models.parity.report``."""

from z1_ros.command import run_command
from z1_ros.models.parity.report import ParityConfig, main

if __name__ == "__main__":
    raise SystemExit(run_command("parity", main, ParityConfig))
