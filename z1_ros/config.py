"""Conversion of a frozen dataclass to ROS parameters and command-line flags.

The dataclass is the only source of a config's defaults, units, descriptions and invariants. The
string literal below a field is its description. The parameter name is the dotted path of fields and
also the flag name (``guard.max_age_s`` = ``--guard.max-age-s``).
"""

import ast
import inspect
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

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


def unflatten(config: T, values: Mapping[str, Any], prefix: str = "") -> T:
    """Return ``config`` with the dotted ``values`` replaced; error messages add ``prefix``.

    Raises:
        ConfigError: A name is unknown, a value has a wrong type or is not one of the choices, or
            the dataclass refuses the values.
    """
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
        own[head] = unflatten(getattr(config, head), nested, f"{prefix}{head}.")
    return replace(config, **own)  # type: ignore[type-var]


def declarations(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield dotted name, type and metadata of each field; those of a group add its metadata."""
    kinds = get_type_hints(cls)
    for field in fields(cls):
        kind = kinds[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            for name, inner, metadata in declarations(kind, f"{prefix}{field.name}."):
                yield name, inner, {**field.metadata, **metadata}
        else:
            yield prefix + field.name, kind, field.metadata


def choices(cls: type) -> dict[str, tuple[Any, ...]]:
    """Return ``{"group.field": values}`` of each field whose type is a ``Literal``, in order."""
    found = declarations(cls)
    return {name: get_args(kind) for name, kind, _ in found if get_origin(kind) is Literal}


def descriptions(cls: type, prefix: str = "") -> dict[str, str]:
    """Return ``{"group.field": text}``: the string literal below each field, also if inherited."""
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


def _cast(name: str, value: Any, kind: Any) -> Any:
    """Return ``value`` as the declared type of its field; int is accepted for float.

    The types are those of ROS parameters: bool, int, float, str, ``Literal`` and ``tuple[X, ...]``.
    """
    if get_origin(kind) is Literal:
        # Compare the type as well: True == 1.
        if any(type(value) is type(known) and value == known for known in get_args(kind)):
            return value
        known = [str(choice) for choice in get_args(kind)]
        raise ConfigError(f"setting {name!r} is {value!r}. {closest(str(value), known)}")
    if get_origin(kind) is tuple:
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            element = get_args(kind)[0]
            return tuple(_cast(f"{name}[{at}]", v, element) for at, v in enumerate(value))
        kind = tuple
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(
            f"setting {name!r} must be {kind.__name__}, got {type(value).__name__} {value!r}"
        )
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"setting {name!r} is nan, expected a number")
    return value
