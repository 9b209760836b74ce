"""Builds frozen dataclasses from parsed JSON and checks all keys and value types."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from z1_ros.errors import closest
from z1_ros.files import SHOWN, shown

MAX_TEXT = 500


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 1 <= len(value) <= MAX_TEXT


def is_number(value: Any, largest: float = 1e300) -> bool:
    """Return whether a value is a number within ±``largest``; NaN and infinity are not."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= largest


_KINDS: dict[type, tuple[str, Callable[[Any], bool]]] = {
    str: (f"text in one line of 1 to {MAX_TEXT} characters", _is_text),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: type(value) is int),
    float: ("a finite number", is_number),
    list: ("a list", lambda value: isinstance(value, list)),
    dict: ("an object", lambda value: isinstance(value, dict)),
}
"""Type -> its description in errors, and its check."""


def from_json(cls: type, data: Any, optional: Collection[str] = (), name: str = "") -> Any:
    """Build a dataclass from parsed JSON; its type annotations define the checks.

    ``optional`` are the ``Class.key`` of the keys that may be missing; then their default is used.
    ``name`` is the position of ``data`` in the file, for errors; empty for the whole file.

    Raises:
        ValueError: A key is unknown or missing, or a value has the wrong type.
    """
    _checked(dict, data, name or cls.__name__)
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
        hint = next(arg for arg in args if arg is not NoneType)
        return None if value is None else _value(hint, value, optional, name)
    if is_dataclass(hint):
        return from_json(hint, value, optional, name)  # type: ignore[arg-type]
    if origin is tuple:
        values = _checked(list, value, name)
        return tuple(_value(args[0], v, optional, f"{name}[{i}]") for i, v in enumerate(values))
    if origin in (dict, Mapping):
        return {
            _checked(str, key, f"a key of {name}"): _value(args[1], v, optional, f"{name}.{key}")
            for key, v in _checked(dict, value, name).items()
        }
    if origin is Literal:
        if not isinstance(value, str) or value not in args:
            raise ValueError(f"{name} is {shown(value)}. {closest(str(value)[:SHOWN], args)}")
        return value
    return _checked(hint, value, name)


def _checked(kind: type, value: Any, name: str) -> Any:
    words, fits = _KINDS[kind]
    if not fits(value):
        raise ValueError(f"{name} must be {words}, got {shown(value)}")
    return kind(value)
