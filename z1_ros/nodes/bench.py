"""``z1-bench sim | policy``: side-by-side ratios and floors, each with its own flags."""

import sys
from importlib import import_module

import tyro

from z1_ros.errors import Z1Error, closest

# Imported when asked for: the policy's benchmark needs torch, the simulator's does not.
_BENCHES = {
    "sim": ("z1_ros.sim.bench", "SimBenchConfig"),
    "policy": ("z1_ros.models.bench", "PolicyBenchConfig"),
}


def cli() -> int:
    """Entry point of ``z1-bench``."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help") or name not in _BENCHES:
        asked = name in ("-h", "--help")
        print(  # noqa: T201
            f"usage: z1-bench {{{','.join(_BENCHES)}}} [--help]"
            + ("" if asked else f"\nz1-bench: no benchmark {name!r}. {closest(name, _BENCHES)}"),
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    path, config = _BENCHES[name]
    try:
        module = import_module(path)
        module.main(tyro.cli(getattr(module, config), prog=f"z1-bench {name}", args=sys.argv[2:]))
    except Z1Error as error:
        print(f"z1-bench: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(cli())
