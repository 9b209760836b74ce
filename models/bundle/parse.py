"""Builds frozen dataclasses from parsed JSON and checks all keys and value types."""

import math
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from z1_ros.errors import closest
from z1_ros.files import SHOWN, shown

MAX_TEXT = 500


def from_json(cls: type, data: Any, optional: Collection[str] = (), name: str = "") -> Any:
    """Build a dataclass from parsed JSON.

    Args:
        cls: Dataclass; its type annotations define the checks.
        data: Parsed JSON.
        optional: ``Class.key`` of the keys that may be missing; then their default is used.
        name: Position of ``data`` in the file, for errors; empty for the whole file.

    Raises:
        ValueError: A key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{name or cls.__name__} must be an object, got {shown(data)}")
    within, hints = f"{name}." if name else "", get_type_hints(cls)
    known = [field.name for field in fields(cls)]
    for key in data:
        if key not in known:
            raise ValueError(
                f"{name or 'it'} has no key {shown(key)}. {closest(key[:SHOWN], known)}"
            )
    for key in known:
        if key not in data and f"{cls.__name__}.{key}" not in optional:
            raise ValueError(f"{within}{key} is missing")
    return cls(**{key: _value(hints[key], data[key], optional, f"{within}{key}") for key in data})


def _value(hint: Any, value: Any, optional: Collection[str], name: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):  # of a type and None
        if value is None:
            return None
        hint = next(arg for arg in args if arg is not NoneType)
        return _value(hint, value, optional, name)
    if is_dataclass(hint):
        return from_json(hint, value, optional, name)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{name} must be a list, got {shown(value)}")
        return tuple(_value(args[0], v, optional, f"{name}[{i}]") for i, v in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be an object, got {shown(value)}")
        return {
            _text(key, f"a key of {name}"): _value(args[1], v, optional, f"{name}.{key}")
            for key, v in value.items()
        }
    if origin is Literal:
        if not isinstance(value, str) or value not in args:
            raise ValueError(f"{name} is {shown(value)}. {closest(str(value)[:SHOWN], args)}")
        return value
    return _CHECKS[hint](value, name)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= MAX_TEXT:
        raise ValueError(
            f"{name} must be text in one line of 1 to {MAX_TEXT} characters, got {shown(value)}"
        )
    return value


def _bool(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {shown(value)}")
    return value


def _int(value: Any, name: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    return value


def _float(value: Any, name: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or abs(value) > 1e300 or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    return float(value)


_CHECKS = {str: _text, bool: _bool, int: _int, float: _float}
