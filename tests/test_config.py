"""One config dataclass serves as YAML, parameters and flags."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from z1_ros.config import choices, descriptions, flatten, from_yaml, unflatten
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
    level: Literal[1, 2] | None = None
    """A choice, or none."""
    out: Path | None = None
    """Where to."""
    size: tuple[int, float] = (1, 0.5)
    """Two numbers."""
    count: int | None = None
    """A number, or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class More(Config):
    """Inherits everything."""

    steps: int = 6
    """Other steps."""
    extra: Any = None
    """Anything."""


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
        ({"count": "many"}, "'count' must be int, got str 'many'"),
        ({"count": 1.5}, "'count' must be int, got float 1.5"),
        ({"name": None}, "'name' must be str, got NoneType None"),
        ({"tasks": "all"}, "'tasks' must be tuple, got str 'all'"),
        ({"tasks": ["a", 3]}, "'tasks[1]' must be str, got int 3"),
        ({"size": [1]}, "'size' must have 2 values, got 1"),
        ({"out": 3}, "'out' must be Path, got int 3"),
    ],
)
def test_bad_values_are_named(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        unflatten(Config(), values)


def test_declared_types_are_what_counts() -> None:
    values = {"level": 2, "out": "a/b", "size": [3, 4], "count": 5, "extra": {"any": "thing"}}
    config = unflatten(More(), values)
    assert (config.level, config.out, config.count) == (2, Path("a/b"), 5)
    assert config.size == (3, 4.0) and isinstance(config.size[1], float)
    again = unflatten(config, {"level": None, "out": None, "count": None})
    assert (again.level, again.out, again.count) == (None, None, None)


def test_choices_are_those_of_the_literals() -> None:
    expected = {"limits.mode": ("realtime", "lockstep"), "level": (1, 2)}
    assert choices(Config) == choices(More) == expected


def test_yaml_holds_deviations_only(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("steps: 9\nlimits:\n  max_age_s: 0.5\n")
    config = from_yaml(Config(), path)
    assert (config.steps, config.limits.max_age_s, config.name) == (9, 0.5, "a")


@pytest.mark.parametrize(
    "text", ["- a list\n", "steps: [1\n", "nope: 1\n", "\udcff", "[" * 9999, "limits: {mode: x}\n"]
)
def test_bad_yaml_is_one_clear_error(tmp_path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        from_yaml(Config(), path)


def test_missing_yaml_names_the_path(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        from_yaml(Config(), tmp_path / "none.yaml")


def test_descriptions_are_the_literals_below_the_fields() -> None:
    texts = descriptions(Config)
    assert texts["name"] == "A name."
    assert texts["limits.max_age_s"] == "Oldest action that is passed on [s]."


def test_inherited_fields_are_described_once_more_where_they_change() -> None:
    texts = descriptions(More)
    assert (texts["name"], texts["steps"], texts["extra"]) == (
        "A name.",
        "Other steps.",
        "Anything.",
    )
    assert texts.keys() == flatten(More()).keys() | {"limits"}
