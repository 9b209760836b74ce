"""One frozen dataclass, three faces: ROS parameters, command-line flags, YAML deviations.

A config's defaults, units, descriptions and invariants live in its dataclass and nowhere else.
The string literal below a field is its description everywhere. Parameter name = dotted path
of fields = flag name (``guard.max_age_s`` = ``--guard.max-age-s``).
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from z1_ros.errors import ConfigError, closest

T = TypeVar("T")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return ``{"group.field": value}`` for a config dataclass, nested groups joined by dots."""
    flat: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            flat |= flatten(value, f"{prefix}{field.name}.")
        else:
            flat[prefix + field.name] = value
    return flat


def unflatten(config: T, values: Mapping[str, Any]) -> T:
    """Return ``config`` with the dotted ``values`` replaced.

    Raises:
        ConfigError: Unknown name, wrong type, or an invariant of the dataclass is broken.
    """
    known = flatten(config)
    groups: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}. {closest(name, known)}")
        head, _, rest = name.partition(".")
        if rest:
            groups.setdefault(head, {})[rest] = value
        else:
            own[name] = _cast(name, value, known[name])
    for head, nested in groups.items():
        own[head] = unflatten(getattr(config, head), nested)
    return replace(config, **own)  # type: ignore[type-var]


def from_yaml(config: T, path: str | Path) -> T:
    """Return ``config`` with the deviations of a YAML file (nested or dotted keys) applied."""
    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no settings file at {path}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if data is None:
        return config
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(data).__name__}")
    try:
        return unflatten(config, _dotted(data))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def descriptions(cls: type, prefix: str = "") -> dict[str, str]:
    """Return ``{"group.field": text}``: the string literal below each field of the class."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(definition, ast.ClassDef)
    body = definition.body
    found: dict[str, str] = {}
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = " ".join(str(after.value.value).split())
        found[prefix + statement.target.id] = text
    for field in fields(cls):
        if isinstance(field.type, type) and is_dataclass(field.type):
            found |= descriptions(field.type, f"{prefix}{field.name}.")
    return found


def _dotted(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _cast(name: str, value: Any, default: Any) -> Any:
    """Check ``value`` against the type of the default; int is accepted where float is meant."""
    if default is None:
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        return tuple(value)
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, type(default)):
        raise ConfigError(
            f"setting {name!r} must be {type(default).__name__}, "
            f"got {type(value).__name__} {value!r}"
        )
    return value
