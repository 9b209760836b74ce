"""``python -m z1_ros.commands eval …``: the same as ``z1-eval …``, without an installed script."""

import sys

from z1_ros.commands.entry import COMMANDS
from z1_ros.errors import closest
from z1_ros.failures import REFUSED, guarded


def main() -> int:
    """Call the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        usage = "usage: python -m z1_ros.commands COMMAND [--help]\n"
        return guarded("z1_ros.commands", lambda: print("\n  ".join([usage, *COMMANDS])))  # noqa: T201
    if name not in COMMANDS:
        sys.stderr.write(f"no command {name!r}. {closest(name, COMMANDS)}\n")
        return REFUSED
    sys.argv[:2] = [f"z1-{name}"]
    return COMMANDS[name]()


if __name__ == "__main__":
    raise SystemExit(main())
