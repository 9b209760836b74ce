"""Write the reference pages that follow from the code: flags, node parameters, launch arguments.

    python -m z1_ros.commands.reference            # write docs/reference/*.md
    python -m z1_ros.commands.reference --check    # exit code 1 if one of them is out of date

Everything is read from the config dataclasses, so a flag's type, default and description have one
source. Libraries that are not installed (ROS 2, torch) are replaced by empty stand-ins: the pages
can be made on any machine.
"""

import ast
import importlib
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import tyro

from z1_ros.command import run_command
from z1_ros.commands.stand_ins import StandIns
from z1_ros.config import descriptions
from z1_ros.errors import ConfigError
from z1_ros.files import write_text

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reference"
GENERATED = "<!-- Made by python -m z1_ros.commands.reference: change the dataclasses instead. -->"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceConfig:
    """Write the pages of docs/reference that follow from the code."""

    out: Path = PAGES
    """Folder to write to."""
    check: bool = False
    """Write nothing; exit with code 1 if a page is out of date."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One field of a config dataclass, as a flag, a parameter or a launch argument."""

    path: tuple[str, ...]
    """Names of the field and of the groups that its name shows."""
    hint: Any
    """Its type, without annotations."""
    default: str
    """Its default in Markdown; empty if it must be given."""
    text: str
    """Its description in Markdown."""
    group: str = ""
    """Description of the group that it belongs to; empty at the top."""
    positional: bool = False
    """Given by its place, not by a flag."""
    metadata: Mapping[str, Any] | None = None
    """The field's own: ``range`` and ``read_only``."""

    @property
    def flag(self) -> str:
        """Its spelling on a command line."""
        name = ".".join(self.path).replace("_", "-")
        return self.path[-1].upper() if self.positional else f"--{name}"

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings that a command line accepts."""
        if self.positional:
            return ()
        if self.hint is bool:
            *groups, name = self.flag.removeprefix("--").split(".")
            return (self.flag, f"--{'.'.join([*groups, f'no-{name}'])}")
        return (self.flag,)


# From a dataclass to its settings


def settings(
    cls: type,
    prefix: tuple[str, ...] = (),
    group: str = "",
    metadata: Mapping[str, Any] | None = None,
    omit: bool = False,
) -> Iterator[Setting]:
    """Yield the settings of a config dataclass and of the groups in it, in order.

    Args:
        cls: The dataclass.
        prefix: Names of the groups around it, as its flags show them.
        group: Description of the group that it is.
        metadata: Of the field that holds it; it is valid for its own fields too.
        omit: Leave the names of all groups within it out, as ``OmitArgPrefixes`` does.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    texts, sources = _texts(cls), _defaults(cls)
    nested = []
    for field in fields(cls):
        hint, markers = _unwrapped(hints[field.name])
        if _marks(tyro.conf.Suppress) & markers:
            continue
        if is_dataclass(hint):
            short = omit or bool(_marks(tyro.conf.OmitArgPrefixes) & markers)
            nested.append((hint, short, field))
            continue
        yield Setting(
            path=(*prefix, field.name),
            hint=hint,
            default=_default(field, sources.get(field.name, "")),
            text=_markdown(texts.get(field.name, "")),
            group=group,
            positional=bool(_marks(tyro.conf.Positional) & markers),
            metadata={**(metadata or {}), **field.metadata},
        )
    for hint, short, field in nested:
        title = texts.get(field.name) or inspect.getdoc(hint) or field.name
        names = prefix if short else (*prefix, field.name)
        text = _markdown(title.split("\n\n")[0])
        yield from settings(hint, names, text, field.metadata, short)


def _marks(marker: Any) -> set[str]:
    return {repr(mark) for mark in get_args(marker[int])[1:]}


def _unwrapped(hint: Any) -> tuple[Any, set[str]]:
    """Return a type without ``Annotated`` and ``| None``, and the annotations' names."""
    markers: set[str] = set()
    while get_origin(hint) is typing.Annotated:
        hint, *marks = get_args(hint)
        markers |= {repr(mark) for mark in marks}
    if get_origin(hint) in (typing.Union, types.UnionType):
        given = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(given) == 1:
            hint, more = _unwrapped(given[0])
            markers |= more
    return hint, markers


def _texts(cls: type) -> dict[str, str]:
    """Return the description of each field, inherited ones included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            found |= {name: text for name, text in descriptions(base).items() if text}
    return found


def _defaults(cls: type) -> dict[str, str]:
    """Return the source of each field's default."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for item in definition.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value:
                found[item.target.id] = ast.unparse(item.value)
    return found


def _default(field: Any, source: str) -> str:
    if "cpu_count" in source:  # of the machine that writes the page, not of the reader's
        return "by CPU cores"
    value = field.default
    if field.default_factory is not MISSING:
        value = field.default_factory()
    if value is MISSING:
        return ""
    return _value(value)


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return " ".join(map(_value, value)) or "none"
    return f"`{value}`" if str(value) else "empty"


# From settings to Markdown


def _markdown(text: str) -> str:
    """Return a description as the cell of a table."""
    parts = " ".join(text.split()).replace("``", "`").split("`")
    parts[::2] = [part.replace("*", r"\*").replace("<", r"\<") for part in parts[::2]]
    return "`".join(parts).replace("|", r"\|")


def _kind(hint: Any) -> str:
    """Return what may be given, in words."""
    if get_origin(hint) is Literal:
        return r" \| ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) in (tuple, list):
        return f"{_kind(_unwrapped(get_args(hint)[0])[0])} …"
    known = {bool: "switch", int: "whole number", float: "number", str: "text", Path: "path"}
    return known.get(hint, getattr(hint, "__name__", str(hint)))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _flag_tables(found: list[Setting]) -> str:
    parts = []
    for group in dict.fromkeys(item.group for item in found):
        rows = [
            (
                f"`{item.flag}`" + (f", `{item.flags[1]}`" if len(item.flags) > 1 else ""),
                _kind(item.hint),
                item.default or "**required**",
                item.text,
            )
            for item in found
            if item.group == group
        ]
        parts += [*([f"*{group.rstrip('.')}*"] if group else [])]
        parts.append(_table(("flag", "value", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _ros_row(item: Setting) -> tuple[str, str, str]:
    """Return name, value and default as ROS writes them."""
    kind, default = _kind(item.hint), item.default
    if item.hint is bool:
        kind, default = r"`true` \| `false`", {"on": "`true`", "off": "`false`"}[default]
    if limits := (item.metadata or {}).get("range"):
        kind += ", {:g} … {:g}".format(*limits) if limits[1] < 1e6 else f", from {limits[0]}"
    return f"`{'.'.join(item.path)}`", kind, default


def _parameter_table(found: list[Setting]) -> str:
    rows = [
        (*_ros_row(item), "yes" if (item.metadata or {}).get("read_only") else "", item.text)
        for item in found
    ]
    return _table(("parameter", "value", "default", "fixed", "meaning"), rows)


def _argument_table(found: list[Setting]) -> str:
    rows = [(*_ros_row(item), item.text) for item in found]
    return _table(("argument", "value", "default", "meaning"), rows)


def _summary(cls: type) -> str:
    return _markdown((inspect.getdoc(cls) or "").split("\n\n")[0])


# What there is to describe


def commands() -> dict[str, type]:
    """Return the config dataclass of each installed command, ``z1-bench NAME`` one by one."""
    entry = importlib.import_module("z1_ros.commands.entry")
    found: dict[str, type] = {}
    for name, module_name in sorted(_entries(inspect.getsource(entry)).items()):
        module = importlib.import_module(f"z1_ros.commands.{module_name}")
        benchmarks = _benchmarks_of(module)
        for bench, (path, config) in benchmarks.items():
            found[f"{name} {bench}"] = getattr(importlib.import_module(path), config)
        if not benchmarks:
            found[name] = _config_of(module)
    return found


def _entries(source: str) -> dict[str, str]:
    """Return command name -> module of ``z1_ros.commands``, as the entry points state them."""
    pairs: list[tuple[ast.expr, ast.expr]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and len(node.args) >= 2:
            pairs.append((node.args[0], node.args[1]))
        elif isinstance(node, ast.Dict):
            pairs += [(k, v) for k, v in zip(node.keys, node.values, strict=True) if k]
    texts = [[p.value for p in pair if isinstance(p, ast.Constant)] for pair in pairs]
    return {t[0]: t[1] for t in texts if len(t) == 2 and str(t[0]).startswith("z1-")}


def _benchmarks_of(module: types.ModuleType) -> dict[str, tuple[str, str]]:
    """Return benchmark -> module and config, where a command's first word chooses among several."""
    for table in vars(module).values():
        if not (isinstance(table, dict) and all(isinstance(row, tuple) for row in table.values())):
            continue
        rows = {name: row[:2] for name, row in table.items() if str(row[1]).endswith("Config")}
        if rows:
            return {
                name: (path if "." in path else f"z1_ros.benchmarks.{path}", config)
                for name, (path, config) in rows.items()
            }
    return {}


def _config_of(module: types.ModuleType) -> type:
    """Return the dataclass that a command's ``cli`` gives to ``run_command``."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_command":
            return eval(ast.unparse(node.args[2]), vars(module))  # a name of that module
    raise ConfigError(f"{module.__name__} never calls run_command, so its flags are not known")


def pages() -> dict[str, str]:
    """Return the Markdown of each generated page by file name."""
    from z1_ros.graph.policy_graph import PolicyGraphConfig
    from z1_ros.graph.train_graph import TrainGraphConfig
    from z1_ros.nodes import configs

    nodes = {
        "policy_node": configs.PolicyNodeConfig,
        "guard_node": configs.GuardNodeConfig,
        "sim_bridge_node": configs.SimBridgeConfig,
    }
    launches = {"policy.launch.py": PolicyGraphConfig, "train.launch.py": TrainGraphConfig}
    known = commands()
    parts = [
        "# Commands",
        GENERATED,
        "Each command prints this with `--help`. Commands that report numbers write them as JSON "
        "with `--json PATH`. [Errors](errors.md#exit-codes) lists the exit codes.",
        " · ".join(f"[{name}](#{name.replace(' ', '-')})" for name in known),
    ]
    for name, cls in known.items():
        parts += [f"## {name}", _summary(cls), _flag_tables(list(settings(cls)))]
    texts = {"commands.md": parts}
    parts = [
        "# Node parameters",
        GENERATED,
        "Set them with `params_file:=FILE` in a launch, with `--ros-args -p name:=value`, or with "
        "`ros2 param set` while a node runs. A name, type or value that does not fit is refused "
        "with one sentence. A *fixed* parameter cannot change while the process runs; the others "
        "are read again when `policy_node` is configured and when a simulator is reset.",
    ]
    for name, cls in nodes.items():
        parts += [f"## {name}", _parameter_table(list(settings(cls)))]
    texts["node-parameters.md"] = parts
    parts = [
        "# Launch arguments",
        GENERATED,
        "`ros2 launch z1_ros FILE name:=value …`; `--show-args` lists them too. `z1-run` takes "
        "those of `policy.launch.py` as flags: `--graph.name value`.",
    ]
    for name, cls in launches.items():
        parts += [f"## {name}", _summary(cls), _argument_table(list(settings(cls)))]
    texts["launch-arguments.md"] = parts
    return {name: "\n\n".join(parts) + "\n" for name, parts in texts.items()}


def main(config: ReferenceConfig) -> int:
    """Write the pages, or check them; 1 if a check finds one out of date."""
    stale = []
    for name, text in pages().items():
        path = config.out / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if not config.check:
            write_text(path, text)
    for name in stale:
        print(f"{name} {'is out of date' if config.check else 'written'}")  # noqa: T201
    return int(config.check and bool(stale))


def cli() -> int:
    """Parse the flags and run, with stand-ins behind every library that is installed."""
    sys.meta_path.append(StandIns())
    return run_command("z1_ros.commands.reference", main, ReferenceConfig)


if __name__ == "__main__":
    raise SystemExit(cli())
