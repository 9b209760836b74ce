"""``z1-bench sim | policy | load | rl``: benchmarks on this machine, each with its own flags."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from z1_ros.command import config_of, run_command
from z1_ros.errors import closest

BENCHMARKS = {
    "sim": ("simulator", "control steps per second, compared with robosuite's Lift"),
    "policy": ("policy", "latency of an action chunk, compared with the lowest possible"),
    "load": ("load", "disk, memory and time until a bundle's first chunk"),
    "rl": ("rollouts", "cost of a group of rollouts, shared and not"),
}
"""Name of a benchmark -> its module and a description."""


def main_of(name: str) -> Callable[..., Any]:
    """Import a benchmark and return its main function; the policy benchmark needs torch."""
    return import_module(f"z1_ros.benchmarks.{BENCHMARKS[name][0]}").main


def cli() -> int:
    """Entry point of ``z1-bench``."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        print("usage: z1-bench BENCHMARK [--help]\n")  # noqa: T201
        for known, (_, what) in BENCHMARKS.items():
            print(f"  {known:8}{what}")  # noqa: T201
        return 0
    if name not in BENCHMARKS:
        sys.stderr.write(f"z1-bench: no benchmark {name!r}. {closest(name, BENCHMARKS)}\n")
        return 2
    main = main_of(name)
    call = _rollouts if name == "rl" else main
    return run_command(f"z1-bench {name}", call, config_of(main), sys.argv[2:])


def _rollouts(config: Any) -> dict[str, Any]:
    """Measure rollouts with environments in local processes and in ROS graphs."""
    from z1_ros.benchmarks import rollouts
    from z1_ros.learning.rollout.env_pool import OpenPool, local_workers

    openers: dict[rollouts.Through, OpenPool] = {"inproc": local_workers}
    if "ros" in config.through:
        from z1_ros.graph.ros_workers import ros_workers

        openers["ros"] = ros_workers(config.bundle)
    return rollouts.main(config, openers)
