"""The launch file, where ROS 2's launch is installed (the PyPI wheels of rclpy do not bring it)."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("launch_ros")

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch_ros.actions import LifecycleNode, Node

from z1_ros.config import flatten
from z1_ros.errors import ConfigError, GraphError
from z1_ros.nodes.graph import PolicyGraphConfig

FILE = Path(__file__).resolve().parents[2] / "launch" / "policy.launch.py"


@pytest.fixture
def launch_file():
    """The launch file as a module."""
    spec = importlib.util.spec_from_file_location("policy_launch", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def context_with(description, **given) -> LaunchContext:
    context = LaunchContext()
    context.launch_configurations.update({"replan_steps": "4", **given})
    for action in description.entities:
        if isinstance(action, DeclareLaunchArgument):
            action.execute(context)
    return context


def test_the_arguments_are_the_fields_of_the_graphs_config(launch_file):
    arguments = launch_file.generate_launch_description().get_launch_arguments()
    assert {a.name for a in arguments} == set(flatten(PolicyGraphConfig()))
    assert all(a.description for a in arguments)


def test_guard_and_robot_and_policy_are_started_and_required(launch_file):
    context = context_with(launch_file.generate_launch_description())
    nodes = [a for a in launch_file.start(context) if isinstance(a, Node)]
    assert [n.node_executable for n in nodes] == ["sim_bridge_node", "guard_node", "policy_node"]
    assert isinstance(nodes[2], LifecycleNode)
    context.extend_locals({"event": type("Exited", (), {"returncode": -9})})
    with pytest.raises(GraphError, match="guard_node ended with exit code -9"):
        launch_file.end_all(context, "guard_node")


def test_autostart_can_be_switched_off(launch_file):
    description = launch_file.generate_launch_description()
    on, off = (
        launch_file.start(context_with(description, autostart=word)) for word in ("true", "false")
    )
    assert len(on) - len(off) == 2, "the handlers that configure and activate"


def test_mistakes_are_one_sentence(launch_file):
    with pytest.raises(ConfigError, match=r"unknown launch argument 'modell'.*'model'"):
        launch_file.refuse_unknown_arguments(["ros2", "policy.launch.py", "modell:=x"])
    launch_file.refuse_unknown_arguments(["ros2", "other.launch.py", "modell:=x"])
    with pytest.raises(ConfigError, match="seed must be int, got 'abc'"):
        launch_file.parse("seed", "abc", 0)
    context = context_with(launch_file.generate_launch_description(), robot="franka")
    with pytest.raises(ConfigError, match="robot 'franka' is not part of this version"):
        launch_file.start(context)
