"""One config dataclass serves as parameters and flags."""

import re
from dataclasses import dataclass, field
from typing import Literal

import pytest

from z1_ros.config import choices, descriptions, flatten, unflatten
from z1_ros.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Inner group."""

    max_age_s: float = 0.2
    """Oldest action that is passed on [s]."""
    mode: Literal["realtime", "lockstep"] = "realtime"
    """Who waits."""

    def __post_init__(self) -> None:
        if self.max_age_s <= 0:
            raise ConfigError(f"max_age_s must be > 0, got {self.max_age_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Outer config."""

    name: str = "a"
    """A name."""
    steps: int = 5
    """Steps."""
    fast: bool = False
    """Speed."""
    tasks: tuple[str, ...] = ("x",)
    """Tasks."""
    limits: Limits = field(default_factory=Limits)
    """Group."""
    level: Literal[1, 2] = 1
    """A choice."""
    sizes: tuple[float, ...] = (1.0, 0.5)
    """Numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class More(Config):
    """Inherits everything."""

    steps: int = 6
    """Other steps."""
    extra: int = 0
    """One more."""


def test_flatten_and_unflatten_are_inverse() -> None:
    changed = Config(name="b", steps=7, fast=True, tasks=("y", "z"), limits=Limits(max_age_s=1.0))
    assert unflatten(Config(), flatten(changed)) == changed


def test_int_is_accepted_where_float_is_meant() -> None:
    assert unflatten(Config(), {"limits.max_age_s": 1}).limits.max_age_s == 1.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stpes": 3}, "Did you mean 'steps'"),
        ({"limits.max_agee_s": 1.0}, "Did you mean 'limits.max_age_s'"),
        ({"steps": "3"}, "must be int"),
        ({"steps": True}, "must be int"),
        ({"fast": 1}, "must be bool"),
        ({"limits.max_age_s": -1.0}, "must be > 0"),
        ({"limits.max_age_s": float("nan")}, "'limits.max_age_s' is nan"),
        ({"limits.max_age_s": "1"}, "must be float, got str '1'"),
        (
            {"limits.mode": "lockstp"},
            "'limits.mode' is 'lockstp'. Known: lockstep, realtime. Did you mean 'lockstep'?",
        ),
        ({"limits.mode": 1}, "'limits.mode' is 1. Known: lockstep, realtime."),
        ({"level": 3}, "'level' is 3. Known: 1, 2."),
        ({"level": True}, "'level' is True. Known: 1, 2."),
        ({"steps": 1.5}, "'steps' must be int, got float 1.5"),
        ({"name": None}, "'name' must be str, got NoneType None"),
        ({"tasks": "all"}, "'tasks' must be tuple, got str 'all'"),
        ({"tasks": ["a", 3]}, "'tasks[1]' must be str, got int 3"),
        ({"sizes": 3}, "'sizes' must be tuple, got int 3"),
    ],
)
def test_bad_values_are_named(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        unflatten(Config(), values)


def test_declared_types_are_what_counts() -> None:
    config = unflatten(More(), {"level": 2, "sizes": [3, 4]})
    assert (config.level, config.sizes) == (2, (3.0, 4.0)) and type(config.sizes[0]) is float


def test_choices_are_those_of_the_literals() -> None:
    expected = {"limits.mode": ("realtime", "lockstep"), "level": (1, 2)}
    assert choices(Config) == choices(More) == expected


def test_descriptions_are_the_literals_below_the_fields() -> None:
    texts = descriptions(Config)
    assert texts["name"] == "A name."
    assert texts["limits.max_age_s"] == "Oldest action that is passed on [s]."


def test_inherited_fields_are_described_once_more_where_they_change() -> None:
    texts = descriptions(More)
    assert (texts["name"], texts["steps"], texts["extra"]) == (
        "A name.",
        "Other steps.",
        "One more.",
    )
    assert texts.keys() == flatten(More()).keys() | {"limits"}
