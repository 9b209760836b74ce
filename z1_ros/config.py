"""One frozen dataclass, three faces: ROS parameters, command-line flags, YAML deviations.

A config's defaults, units, descriptions and invariants live in its dataclass and nowhere else.
The string literal below a field is its description everywhere. Parameter name = dotted path
of fields = flag name (``guard.max_age_s`` = ``--guard.max-age-s``).
"""

import ast
import inspect
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

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
        ConfigError: Unknown name, wrong type, none of the choices, or an invariant of the
            dataclass is broken.
    """
    return _replaced(config, values, "")


def _replaced(config: T, values: Mapping[str, Any], prefix: str) -> T:
    known, types = flatten(config), get_type_hints(type(config))
    groups: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown setting {prefix + name!r}. {closest(name, known)}")
        head, _, rest = name.partition(".")
        if rest:
            groups.setdefault(head, {})[rest] = value
        else:
            own[name] = _cast(prefix + name, value, types[name])
    for head, nested in groups.items():
        own[head] = _replaced(getattr(config, head), nested, f"{prefix}{head}.")
    return replace(config, **own)  # type: ignore[type-var]


def from_yaml(config: T, path: str | Path) -> T:
    """Return ``config`` with the deviations of a YAML file (nested or dotted keys) applied."""
    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no settings file at {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if data is None:
        return config
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(data).__name__}")
    try:
        return unflatten(config, _dotted(data))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def choices(cls: type, prefix: str = "") -> dict[str, tuple[Any, ...]]:
    """Return ``{"group.field": values}`` of each field whose type is a ``Literal``.

    The values are in their declared order; None is left out where the field may be None.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for name, kind in get_type_hints(cls).items():
        if name not in {field.name for field in fields(cls)}:
            continue
        if is_dataclass(kind) and isinstance(kind, type):
            found |= choices(kind, f"{prefix}{name}.")
        for part in alternatives(kind):
            if get_origin(part) is Literal:
                found[prefix + name] = get_args(part)
    return found


def descriptions(cls: type, prefix: str = "") -> dict[str, str]:
    """Return ``{"group.field": text}``: the string literal below each field, inherited or own."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            own = _own_descriptions(base)
            found |= {prefix + name: text for name, text in own.items()}
    for name, kind in get_type_hints(cls).items():
        if isinstance(kind, type) and is_dataclass(kind):
            found |= descriptions(kind, f"{prefix}{name}.")
    return found


def _own_descriptions(cls: type) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, after in pairwise(definition.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(after, ast.Expr):
            found[ast.unparse(statement.target)] = " ".join(ast.literal_eval(after.value).split())
    return found


def _dotted(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union; the type itself if it is none."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _cast(name: str, value: Any, kind: Any) -> Any:
    """Return ``value`` as the declared type of its field; int is accepted where float is meant."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _cast_to_one_of(name, value, alternatives(kind))
    if origin is Literal:
        # By type as well: True is not 1.
        if any(type(value) is type(known) and value == known for known in get_args(kind)):
            return value
        known = [str(choice) for choice in get_args(kind)]
        raise ConfigError(f"setting {name!r} is {value!r}. {closest(str(value), known)}")
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return _cast_tuple(name, value, get_args(kind))
    kind = origin or kind
    if kind is float and type(value) is int:
        value = float(value)
    if kind is Path and isinstance(value, str):
        value = Path(value)
    wrong_bool = isinstance(value, bool) and kind is not bool
    if wrong_bool or not isinstance(value, NoneType if kind is None else kind):
        raise ConfigError(
            f"setting {name!r} must be {kind.__name__}, got {type(value).__name__} {value!r}"
        )
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"setting {name!r} is nan, expected a number")
    return value


def _cast_to_one_of(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    """Return ``value`` as the first type that takes it; the error is that of the first type."""
    if value is None and NoneType in kinds:
        return None
    errors = []
    for kind in kinds:
        try:
            return _cast(name, value, kind)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _cast_tuple(name: str, values: Sequence[Any], kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if kinds[-1:] == (...,):
        kinds = kinds[:1] * len(values)
    if len(values) != len(kinds):
        raise ConfigError(f"setting {name!r} must have {len(kinds)} values, got {len(values)}")
    pairs = enumerate(zip(values, kinds, strict=True))
    return tuple(_cast(f"{name}[{at}]", value, kind) for at, (value, kind) in pairs)
