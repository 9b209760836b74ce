"""``z1-bench sim | policy | load | rl | memory``: ratios and floors, each with its own flags."""

import sys
from importlib import import_module

from z1_ros.command import run_command
from z1_ros.errors import closest

# Imported when asked for: the policy's benchmark needs torch, the simulator's does not.
_BENCHES = {
    "sim": ("z1_ros.benchmarks.simulator", "SimBenchConfig"),
    "policy": ("z1_ros.benchmarks.policy", "PolicyBenchConfig"),
    "load": ("z1_ros.benchmarks.load", "LoadBenchConfig"),
    "rl": ("z1_ros.commands.bench_rl", "RlBenchConfig"),
    "memory": ("z1_ros.benchmarks.memory", "MemoryBenchConfig"),
}


def cli() -> int:
    """Entry point of ``z1-bench``."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help") or name not in _BENCHES:
        asked = name in ("-h", "--help")
        print(
            f"usage: z1-bench {{{','.join(_BENCHES)}}} [--help]"
            + ("" if asked else f"\nz1-bench: no benchmark {name!r}. {closest(name, _BENCHES)}"),
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    path, config = _BENCHES[name]
    module = import_module(path)
    return run_command(f"z1-bench {name}", module.main, getattr(module, config), sys.argv[2:])
