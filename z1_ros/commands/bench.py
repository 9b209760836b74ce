"""``z1-bench sim | policy | load | rl``: what things cost here, each with flags of its own."""

import sys
from importlib import import_module
from typing import Any

from z1_ros.command import run_command
from z1_ros.errors import closest
from z1_ros.files import require_writable

# Imported when asked for: the policy's benchmark needs torch, the simulator's does not.
_BENCHMARKS = {
    "sim": ("simulator", "SimBenchConfig", "control steps per second, beside robosuite's Lift"),
    "policy": ("policy", "PolicyBenchConfig", "latency of an action chunk, beside its floor"),
    "load": ("load", "LoadBenchConfig", "disk, memory and time until a bundle's first chunk"),
    "rl": ("rollouts", "RlBenchConfig", "cost of a group of rollouts, shared and not"),
}


def cli() -> int:
    """Entry point of ``z1-bench``."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in _BENCHMARKS:
        return _usage(name)
    file, config, _ = _BENCHMARKS[name]
    module = import_module(f"z1_ros.benchmarks.{file}")
    measure = _rollouts if name == "rl" else module.main

    def main(config: Any) -> dict[str, Any]:
        if config.json is not None:
            require_writable(config.json)
        return measure(config)

    return run_command(f"z1-bench {name}", main, getattr(module, config), sys.argv[2:])


def _usage(name: str) -> int:
    """Say what there is; 0 if that was the question."""
    if name not in ("-h", "--help"):
        sys.stderr.write(f"z1-bench: no benchmark {name!r}. {closest(name, _BENCHMARKS)}\n")
        return 2
    sys.stdout.write("usage: z1-bench BENCHMARK [--help]\n\n")
    for known, (_, _, what) in _BENCHMARKS.items():
        sys.stdout.write(f"  {known:8}{what}\n")
    return 0


def _rollouts(config: Any) -> dict[str, Any]:
    """Measure rollouts with every way to reach an environment: processes here, or over ROS."""
    from z1_ros.benchmarks import rollouts
    from z1_ros.learning.rollout.env_pool import local_workers

    openers: dict[rollouts.Through, rollouts.Opener] = {"inproc": local_workers}
    if "ros" in config.through:
        from z1_ros.graph.ros_workers import ros_workers

        openers["ros"] = ros_workers(config.bundle)
    return rollouts.main(config, openers)
