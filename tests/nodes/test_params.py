"""A config dataclass declares itself as parameters; no ROS graph is needed to see how."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
from rclpy.parameter import Parameter

from z1_ros.errors import ConfigError
from z1_ros.nodes import params


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A group."""

    names: tuple[str, ...] = ("a", "b")
    """Names of things."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A config."""

    rate_hz: float = field(default=20.0, metadata={"range": (1.0, 50.0)})
    """How often [Hz]."""
    mode: str = field(default="slow", metadata={"read_only": True})
    """How."""
    group: Group = field(default_factory=Group, metadata={"read_only": True})

    def __post_init__(self) -> None:
        """Check."""
        if self.mode == "fast" and self.rate_hz < 10:
            raise ConfigError("fast needs at least 10 Hz")


class FakeNode:
    """As much of a node as declaring needs."""

    def __init__(self, **overrides):
        self._parameters = {"use_sim_time": Parameter("use_sim_time", value=False)}
        self._parameter_overrides = {
            name.replace("__", "."): Parameter(name, value=value)
            for name, value in overrides.items()
        }
        self.descriptors = {}

    def get_name(self):
        """Name."""
        return "fake"

    def declare_parameter(self, name, value, descriptor, ignore_override):
        """Keep what was declared."""
        assert ignore_override
        self._parameters[name] = Parameter(name, value=value)
        self.descriptors[name] = descriptor

    def add_on_set_parameters_callback(self, callback):
        """Keep it."""
        self.check = callback

    def get_parameter(self, name):
        """Look up."""
        return self._parameters[name]


def test_every_field_becomes_a_described_parameter():
    node = FakeNode()
    assert params.declare(node, Config()) == Config()
    assert set(node.descriptors) == {"rate_hz", "mode", "group.names"}
    rate = node.descriptors["rate_hz"]
    assert (rate.description, rate.read_only) == ("How often [Hz].", False)
    assert (rate.floating_point_range[0].from_value, rate.floating_point_range[0].to_value) == (
        1,
        50,
    )
    assert node.descriptors["group.names"].read_only, "a group's metadata holds for its members"
    assert node.get_parameter("group.names").value == ["a", "b"]


def test_overrides_are_applied_and_read_back():
    node = FakeNode(rate_hz=5, group__names=["x"], use_sim_time=True)
    config = params.declare(node, Config())
    assert config == Config(rate_hz=5.0, group=Group(names=("x",)))
    assert params.read(node, Config()) == config


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"rate": 5.0}, "fake has no parameter 'rate'. Known: group.names, mode, rate_hz. Did you"),
        ({"rate_hz": "5"}, "setting 'rate_hz' must be float, got str '5'"),
        ({"mode": "fast", "rate_hz": 5.0}, "fast needs at least 10 Hz"),
    ],
)
def test_bad_overrides_are_one_sentence(overrides, says):
    with pytest.raises(ConfigError) as caught:
        params.declare(FakeNode(**overrides), Config())
    assert says in str(caught.value)


def test_later_changes_are_checked_together():
    node = FakeNode(mode="fast")
    params.declare(node, Config())
    assert node.check([Parameter("rate_hz", value=12.0)]).successful
    assert node.check([SimpleNamespace(name="use_sim_time", value=True)]).successful
    refused = node.check([Parameter("rate_hz", value=2.0)])
    assert (refused.successful, refused.reason) == (False, "fast needs at least 10 Hz")
