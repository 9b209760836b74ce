"""The launch file where ROS 2's launch is absent; tests/ros/test_launch.py is about the rest."""

import importlib.util
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from z1_ros.config import flatten
from z1_ros.errors import ConfigError
from z1_ros.nodes.graph import PolicyGraphConfig

FILE = Path(__file__).resolve().parents[1] / "launch" / "policy.launch.py"
ROS = (
    "launch",
    "launch.actions",
    "launch.event_handlers",
    "launch.events",
    "launch_ros",
    "launch_ros.actions",
    "launch_ros.event_handlers",
    "launch_ros.events",
    "launch_ros.events.lifecycle",
    "launch_ros.parameter_descriptions",
    "lifecycle_msgs",
    "lifecycle_msgs.msg",
)


@pytest.fixture
def launch_file(monkeypatch):
    """The launch file as a module, with ROS's modules replaced."""
    for name in ROS:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    spec = importlib.util.spec_from_file_location("policy_launch", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_field_is_an_argument_whose_default_can_be_read_back(launch_file):
    launch_file.generate_launch_description()
    declared = {
        call.args[0]: call.kwargs for call in launch_file.DeclareLaunchArgument.call_args_list
    }
    fields = flatten(PolicyGraphConfig())
    assert set(declared) == set(fields)
    for name, default in fields.items():
        given = declared[name]
        assert launch_file.parse(name, given["default_value"], default) == default
        assert given["description"]
        assert given["default_value"] in given.get("choices", [given["default_value"]])


def test_a_choice_that_the_config_refuses_is_not_offered(launch_file):
    for name, choices in launch_file.CHOICES.items():
        default = getattr(PolicyGraphConfig(), name)
        for choice in choices:
            PolicyGraphConfig(**{name: launch_file.parse(name, choice, default)})


def test_mistakes_are_one_sentence(launch_file):
    with pytest.raises(ConfigError, match="launch argument seed must be int, got 'abc'"):
        launch_file.parse("seed", "abc", 0)
    with pytest.raises(ConfigError, match=r"unknown launch argument 'modell'.*'model'"):
        launch_file.refuse_unknown_arguments(["ros2", "policy.launch.py", "modell:=x"])
    launch_file.refuse_unknown_arguments(["ros2", "other.launch.py", "modell:=x"])


def test_every_node_of_the_graph_becomes_an_action(launch_file):
    context = MagicMock()
    values = flatten(PolicyGraphConfig())
    context.launch_configurations = {name: str(value) for name, value in values.items()}
    launch_file.start(context)
    nodes = [*launch_file.Node.call_args_list, *launch_file.LifecycleNode.call_args_list]
    assert {call.kwargs["executable"] for call in nodes} == {
        "sim_bridge_node",
        "guard_node",
        "policy_node",
    }
