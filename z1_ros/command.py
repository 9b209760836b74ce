"""What every command line of ours does the same way: flags from a dataclass, errors in one line."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from z1_ros.errors import Z1Error

T = TypeVar("T")


def run_command(
    name: str, main: Callable[[T], Any], config: type[T], args: Sequence[str] | None = None
) -> int:
    """Parse flags into ``config``, call ``main`` with it and return the exit code.

    The code is 0, 2 after a Z1Error (printed as one sentence) or 130 after Ctrl-C; an int that
    ``main`` returns is taken as the code. Unknown flags end the process with tyro's suggestion.
    """
    try:
        code = main(tyro.cli(config, prog=name, args=args))
    except Z1Error as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    return code if isinstance(code, int) else 0
