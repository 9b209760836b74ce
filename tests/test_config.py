"""One config dataclass serves as YAML, parameters and flags."""

from dataclasses import dataclass, field

import pytest

from z1_ros.config import descriptions, flatten, from_yaml, unflatten
from z1_ros.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Inner group."""

    max_age_s: float = 0.2
    """Oldest action that is passed on [s]."""

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
    ],
)
def test_bad_values_are_named(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        unflatten(Config(), values)


def test_yaml_holds_deviations_only(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("steps: 9\nlimits:\n  max_age_s: 0.5\n")
    config = from_yaml(Config(), path)
    assert (config.steps, config.limits.max_age_s, config.name) == (9, 0.5, "a")


@pytest.mark.parametrize("text", ["- a list\n", "steps: [1\n", "nope: 1\n"])
def test_bad_yaml_is_one_clear_error(tmp_path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        from_yaml(Config(), path)


def test_missing_yaml_names_the_path(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        from_yaml(Config(), tmp_path / "none.yaml")


def test_descriptions_are_the_literals_below_the_fields() -> None:
    texts = descriptions(Config)
    assert texts["name"] == "A name."
    assert texts["limits.max_age_s"] == "Oldest action that is passed on [s]."
