"""Generate the reference pages of flags, node parameters and launch arguments from the code.

    python -m docs.generate            # write docs/reference/*.md
    python -m docs.generate --check    # exit code 1 if one of them is out of date

All content is read from the config dataclasses, the only source of a flag's type, default and
description. The libraries of all commands must be installed, including torch and rclpy.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import chain, groupby
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from z1_ros.command import config_of, run_command
from z1_ros.commands import bench, entry
from z1_ros.config import descriptions
from z1_ros.files import write_text
from z1_ros.graph.policy_graph import PolicyGraphConfig
from z1_ros.graph.train_graph import TrainGraphConfig
from z1_ros.nodes import configs

PAGES = Path(__file__).resolve().parent / "reference"
GENERATED = "<!-- Made by python -m docs.generate: change the dataclasses instead. -->"
COMMANDS = (
    "Each command prints this with `--help`. Commands that report numbers write them as JSON with "
    "`--json PATH`. [Errors](errors.md#exit-codes) lists the exit codes."
)
PARAMETERS = (
    "Set them with `params_file:=FILE` in a launch, with `--ros-args -p name:=value`, or with "
    "`ros2 param set` while a node runs. A name, type or value that does not fit is refused with "
    "one sentence. A *fixed* parameter cannot change while the process runs. Limits on inputs and "
    "`instruction` apply at once; the others are read again when `policy_node` is configured and "
    "when a simulator is reset."
)
ARGUMENTS = (
    "`ros2 launch z1_ros FILE name:=value …`; `--show-args` lists them too. `z1-run` takes those "
    "of `policy.launch.py` as flags: `--graph.name value`."
)
NODES = {
    "policy_node": configs.PolicyNodeConfig,
    "guard_node": configs.GuardNodeConfig,
    "sim_bridge_node": configs.SimBridgeConfig,
}
FILES = {"policy.launch.py": PolicyGraphConfig, "train.launch.py": TrainGraphConfig}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceConfig:
    """Generate the pages of docs/reference from the code."""

    check: bool = False
    """Write nothing; exit with code 1 if a page is out of date."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A field of a config dataclass: a flag, a parameter or a launch argument.

    ``group`` is the description of its group; ``metadata`` includes the metadata of its group.
    """

    name: str
    kind: Any
    default: Any
    text: str
    group: str
    positional: bool
    metadata: Mapping[str, Any]

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings that a command line accepts."""
        if self.positional:
            return ()
        *groups, name = self.name.replace("_", "-").split(".")
        names = (name, f"no-{name}") if self.kind is bool else (name,)
        return tuple("--" + ".".join([*groups, spelling]) for spelling in names)


Row = Callable[[Setting], list[str]]
"""Function that returns the first two cells of a setting's table row: name and value."""


def commands() -> dict[str, type]:
    """Return the config dataclass of each installed command and of each ``z1-bench NAME``."""
    mains: dict[str, Callable[..., Any]] = {}
    for name in sorted(entry.COMMANDS):
        if name == "bench":
            mains |= {f"z1-bench {part}": bench.main_of(part) for part in bench.BENCHMARKS}
        else:
            mains[f"z1-{name}"] = entry.load(name).main
    return {name: config_of(main) for name, main in mains.items()}


def settings(
    cls: type, prefix: str | None = "", group: str = "", metadata: Mapping[str, Any] | None = None
) -> Iterator[Setting]:
    """Yield the settings of a config dataclass, then those of its groups, in order.

    ``prefix`` is the dotted name of the enclosing groups; None omits group names, as flags do.
    """
    hints, texts = get_type_hints(cls, include_extras=True), descriptions(cls)
    groups = []
    for field in fields(cls):
        name, kind = field.name, get_type_hints(cls)[field.name]
        marks = getattr(hints[name], "__metadata__", ())
        if isinstance(kind, type) and is_dataclass(kind):
            short = prefix is None or tyro.conf.OmitArgPrefixes in marks
            inner = None if short else f"{prefix}{name}."
            groups.append(
                settings(kind, inner, texts.get(name, kind.__doc__ or ""), field.metadata)
            )
        elif tyro.conf.Suppress not in marks:
            yield Setting(
                name=(prefix or "") + name,
                kind=kind,
                default=field.default,
                text=texts.get(name, ""),
                group=group,
                positional=tyro.conf.Positional in marks,
                metadata={**(metadata or {}), **field.metadata},
            )
    yield from chain(*groups)


def _tables(cls: type, head: str, row: Row) -> Iterator[str]:
    """Yield a table of the settings, then the description and the table of each group."""
    for group, found in groupby(settings(cls), lambda item: item.group):
        rows = [[*row(item), _default(item.default), _markdown(item.text)] for item in found]
        lines = [[head, "value", "default", "meaning"], ["---"] * 4, *rows]
        if group:
            yield f"*{_markdown(group).rstrip('.')}*"
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _flag_row(item: Setting) -> list[str]:
    spellings = [f"`{flag}`" for flag in item.flags or [item.name.upper()]]
    return [", ".join(spellings), "switch" if item.kind is bool else _kind(item.kind)]


def _ros_row(item: Setting) -> list[str]:
    kind = [_kind(item.kind)]
    if limits := item.metadata.get("range"):
        kind.append("{:g} … {:g}".format(*limits) if limits[1] < 1e6 else f"from {limits[0]}")
    if item.metadata.get("read_only"):
        kind.append("*fixed*")
    return [f"`{item.name}`", ", ".join(kind)]


def _markdown(text: str) -> str:
    """Return a description as a Markdown table cell."""
    parts = " ".join(text.split()).replace("``", "`").split("`")
    parts[::2] = [part.replace("*", r"\*").replace("<", r"\<") for part in parts[::2]]
    return "`".join(parts).replace("|", r"\|")


def _kind(kind: Any) -> str:
    """Return a text that describes the allowed values."""
    if NoneType in get_args(kind):
        (kind,) = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) is Literal:
        return r" \| ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"{_kind(get_args(kind)[0])} …"
    words = {int: "whole number", float: "number", str: "text", Path: "path"}
    return words.get(kind, r"`true` \| `false`")


def _default(value: Any) -> str:
    if value is MISSING:
        return "**required**"
    if isinstance(value, tuple):
        return " ".join(map(_default, value)) or "none"
    if isinstance(value, bool):
        return f"`{value}`".lower()
    return "–" if value is None else f"`{value}`" if str(value) else "empty"


def _page(title: str, intro: str, parts: Mapping[str, type], head: str, row: Row) -> str:
    blocks = [f"# {title}", GENERATED, intro]
    for name, cls in parts.items():
        blocks += [f"## {name}", _markdown(cls.__doc__ or ""), *_tables(cls, head, row)]
    return "\n\n".join(blocks) + "\n"


def pages() -> dict[str, str]:
    """Return the Markdown of each generated page by file name."""
    known = commands()
    index = " · ".join(f"[{name}](#{name.replace(' ', '-')})" for name in known)
    return {
        "commands.md": _page("Commands", f"{COMMANDS}\n\n{index}", known, "flag", _flag_row),
        "node-parameters.md": _page("Node parameters", PARAMETERS, NODES, "parameter", _ros_row),
        "launch-arguments.md": _page("Launch arguments", ARGUMENTS, FILES, "argument", _ros_row),
    }


def main(config: ReferenceConfig) -> int:
    """Write or check the pages; return exit code 1 if a checked page is out of date."""
    stale = 0
    for name, text in pages().items():
        path = PAGES / name
        if not path.is_file() or path.read_text("utf-8") != text:
            stale += 1
            print(f"{name} {'is out of date' if config.check else 'written'}")  # noqa: T201
            if not config.check:
                write_text(path, text)
    return int(config.check and stale > 0)


if __name__ == "__main__":
    raise SystemExit(run_command("docs.generate", main, ReferenceConfig))
