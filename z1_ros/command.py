"""Functions shared by all commands: flags from a dataclass, errors as one sentence."""

import ast
import contextlib
import io
import math
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, TypeVar, get_type_hints

import tyro

from z1_ros.config import descriptions, flatten
from z1_ros.environ import environment
from z1_ros.errors import ConfigError, closest
from z1_ros.failures import DONE, EndAtOnce, guarded
from z1_ros.files import require_writable

T = TypeVar("T")


def run_command(
    name: str, main: Callable[[T], Any], config: type[T], args: Sequence[str] | None = None
) -> int:
    """Parse flags into ``config``, call ``main`` with it and return the exit code.

    ``z1_ros.failures`` lists the exit codes; an int that ``main`` returns is the exit code. Any
    error that ends the command is printed as one sentence, never as a traceback.
    """

    def job() -> Any:
        with one_interrupt(name):
            settings = parse(name, config, sys.argv[1:] if args is None else args)
            if settings is None:
                return DONE
            report = getattr(settings, "json", None)
            if isinstance(report, Path):  # refuse a path that cannot be written before the work
                require_writable(report)
            return main(settings)

    return guarded(name, job)


def config_of(main: Callable[..., Any]) -> type:
    """Return the config dataclass of a command's ``main(config)``; its fields are the flags."""
    return get_type_hints(main)["config"]


def parse(name: str, config: type[T], args: Sequence[str]) -> T | None:
    """Return ``config`` with the values of the flags; print the help and return None for --help.

    Raises:
        ConfigError: A flag is unknown, has no value or has a wrong value.
    """
    helping = any(word in ("-h", "--help") for word in args)
    said = io.StringIO()
    if helping:
        with contextlib.suppress(OSError):  # no source code, e.g. in ``python -c``
            _explain(config)
    try:
        # tyro's errors are boxes as wide as the terminal and in its colours; ``_sentence`` reads
        # them, so the terminal is a plain one that breaks no lines.
        terminal = {} if helping else {"COLUMNS": "10000", "TERM": "dumb"}
        with environment(terminal), contextlib.redirect_stderr(said):
            settings = tyro.cli(config, prog=name, args=args)
    except SystemExit as end:
        if not end.code:
            return None
        words = _sentence(said.getvalue())
        raise ConfigError(f"{words} ({name} --help lists the flags)") from None
    for field, value in flatten(settings).items():
        if isinstance(value, float) and math.isnan(value):
            raise ConfigError(f"--{field.replace('_', '-')} is nan, expected a number")
    return settings


def _explain(config: type) -> None:
    """Give each description to tyro as one line; tyro would keep the line breaks of the source."""
    texts, kinds = descriptions(config), get_type_hints(config)
    for field in fields(config):
        if is_dataclass(kinds[field.name]):
            _explain(kinds[field.name])
        elif field.name in texts:
            help_text = {"help": texts[field.name]}
            field.metadata = MappingProxyType(dict(field.metadata) | help_text)


_CHOICE = r"invalid choice '(.*)' for argument '(.*)'\. Expected one of (\(.*\))\."
_NO_INT = r"Error parsing (-\S+): invalid literal for int\(\) with base 10: (.*)"
_NO_FLOAT = r"Error parsing (-\S+): could not convert string to float: (.*)"
_PHRASES = {
    _NO_INT: r"\1 is \2, expected a whole number",
    _NO_FLOAT: r"\1 is \2, expected a number",
    r"Error parsing (-\S+): (.*)": r"\1: \2",
    r"Error parsing [\w.]+: (.*)": r"\1",
    r"Unrecognized options: (.*)": r"unknown: \1",
    r"Missing value for argument '(.*)'\..*": r"\1 needs a value",
}
"""Pattern of an error of tyro -> our words; the first that fits counts."""


def _sentence(box: str) -> str:
    """Return the text of an error box of tyro as one sentence; unchanged if it is unknown."""
    title, *rows = [line.strip("│| ╭╮╰╯") for line in box.splitlines()] or [""]
    sections: list[list[str]] = [[]]
    for row in rows:
        if row and not row.strip("─-"):
            sections.append([])
        elif row:
            sections[-1].append(row)
    said = [section for section in sections if section]
    if not said:
        return title.strip("─- ") or "the flags cannot be read"
    if said[0][0].startswith("Missing from"):
        flags = [row.split(" ")[0] for row in said[0][1::2]]
        words = f"{', '.join(flags)} {'is' if len(flags) == 1 else 'are'} required"
        unknown = [", ".join(s[1:]) for s in said[1:] if s[0].startswith("Unrecognized")]
        return "; ".join([words, *(f"unknown: {tokens}" for tokens in unknown)])
    words = " ".join(said[0])
    if found := re.fullmatch(_CHOICE, words):
        words = f"{found[2]} is {found[1]!r}. {closest(found[1], ast.literal_eval(found[3]))}"
    for pattern, phrase in _PHRASES.items():
        if found := re.fullmatch(pattern, words):
            words = found.expand(phrase)
            break
    near = [s[1].split(" ")[0] for s in said[1:] if s[0].startswith(("Perhaps", "Arguments sim"))]
    return words + (f". Did you mean {' or '.join(dict.fromkeys(near))}?" if near else "")


@contextlib.contextmanager
def one_interrupt(name: str) -> Iterator[None]:
    """Context in which the first Ctrl-C raises KeyboardInterrupt and the second ends immediately.

    The handler replaces only those of Python and ``entry``; a caller's own handler is kept.
    """
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler or isinstance(before, EndAtOnce)
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, EndAtOnce(name))
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
