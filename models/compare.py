"""What differs between two descriptions, in words."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def first_difference(name: str, one: Any, two: Any) -> str:
    """Return the first part in which two values differ, and both of its values; empty if none.

    Args:
        name: What the values are called, e.g. ``contract``.
        one: A dataclass, mapping, sequence or plain value.
        two: Another, of the same kind.
    """
    if is_dataclass(one) and is_dataclass(two):
        one, two = asdict(one), asdict(two)  # type: ignore[arg-type]
    if isinstance(one, Mapping) and isinstance(two, Mapping) and one.keys() == two.keys():
        pairs = [(f"{name}.{key}", one[key], two[key]) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)) and len(one) == len(two):
        pairs = [(f"{name}[{at}]", a, b) for at, (a, b) in enumerate(zip(one, two, strict=True))]
    else:
        return "" if one == two else f"{name} ({one!r} and {two!r})"
    return next(filter(None, (first_difference(*pair) for pair in pairs)), "")
