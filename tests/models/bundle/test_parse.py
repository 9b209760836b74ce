"""Dataclasses from JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from z1_ros.models.bundle.parse import from_json


@dataclass(frozen=True)
class Part:
    """An inner object."""

    size: int
    scale: float = 1.0


@dataclass(frozen=True)
class Whole:
    """One of each kind of value."""

    name: str
    on: bool
    kind: Literal["a", "b"]
    parts: tuple[Part, ...]
    named: Mapping[str, Part]
    free: Mapping[str, Any]
    choice: Literal["a"] | None = None


GIVEN = {
    "name": "x",
    "on": True,
    "kind": "a",
    "parts": [{"size": 1, "scale": 2}],
    "named": {"n": {"size": 3}},
    "free": {"any": [1, {"x": None}]},
}
OPTIONAL = ("Whole.choice", "Part.scale")


def test_every_kind_of_value_is_built() -> None:
    made = from_json(Whole, GIVEN, OPTIONAL)
    assert made.parts == (Part(1, 2.0),) and type(made.parts[0].scale) is float
    assert made.named == {"n": Part(3)} and made.free == {"any": [1, {"x": None}]}
    assert made.choice is None
    assert from_json(Whole, GIVEN | {"choice": "a"}, OPTIONAL).choice == "a"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 1}, "name must be text in one line"),
        ({"name": ""}, "name must be text in one line"),
        ({"name": "a\tb"}, "name must be text in one line"),
        ({"on": 1}, "on must be true or false, got 1"),
        ({"kind": "c"}, "kind is 'c'. Known: a, b."),
        ({"kind": None}, "kind is null"),
        ({"choice": "b"}, "choice is 'b'"),
        ({"parts": {}}, "parts must be a list, got dict of 0"),
        ({"parts": [3]}, "parts[0] must be an object, got 3"),
        ({"parts": [{"size": 1.0}]}, "parts[0].size must be a whole number, got 1.0"),
        ({"parts": [{"size": True}]}, "parts[0].size must be a whole number, got True"),
        ({"parts": [{"scale": 1}]}, "parts[0].size is missing"),
        ({"parts": [{"size": 1, "scale": 10**400}]}, "scale must be a finite number, got a long"),
        ({"parts": [{"size": 1, "scale": float("nan")}]}, "scale must be a finite number"),
        ({"parts": [{"size": 1, "more": 1}]}, "parts[0] has no key 'more'. Known: scale, size."),
        ({"named": {"n": 1}}, "named.n must be an object"),
        ({"named": {"": {"size": 1}}}, "a key of named must be text"),
        ({"free": []}, "free must be an object"),
        ({"nmae": "x"}, "it has no key 'nmae'. "),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change: dict, words: str) -> None:
    with pytest.raises(ValueError) as error:
        from_json(Whole, GIVEN | change, OPTIONAL)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_default_is_used_only_where_that_is_allowed() -> None:
    with pytest.raises(ValueError, match="choice is missing"):
        from_json(Whole, GIVEN)
