"""The launch files, where ROS 2's launch is installed (rclpy's PyPI wheels do not bring it)."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time

import pytest
from support import ROOT
from support.graphs import PATIENCE_S

pytest.importorskip("launch_ros")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    PopEnvironment,
    PushEnvironment,
    SetEnvironmentVariable,
)
from launch_ros.actions import LifecycleNode, Node

from z1_ros.config import flatten
from z1_ros.errors import ConfigError, GraphError
from z1_ros.graph import launching
from z1_ros.graph.dds import RANGE
from z1_ros.graph.domains import FreeDomain
from z1_ros.graph.policy_graph import PolicyGraphConfig
from z1_ros.graph.train_graph import TrainGraphConfig
from z1_ros.runtime.claim import claim, is_claimed, node_claim

FOLDER = ROOT / "launch"
INSTALLED = False
if shutil.which("ros2"):
    with contextlib.suppress(PackageNotFoundError):
        INSTALLED = bool(get_package_prefix("z1_ros"))
CONFIGS = {"policy": PolicyGraphConfig(), "train": TrainGraphConfig()}


def launch_file(name: str):
    """Return a launch file as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_launch", FOLDER / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(name: str, **given) -> list:
    """Return a launch file's actions."""
    file = launch_file(name)
    context = LaunchContext()
    context.launch_configurations.update(given)
    for action in file.generate_launch_description().entities:
        if isinstance(action, DeclareLaunchArgument):
            action.execute(context)
    return file.start(context)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_arguments_are_the_fields_of_the_graphs_config(name):
    arguments = launch_file(name).generate_launch_description().get_launch_arguments()
    assert {a.name for a in arguments} == set(flatten(CONFIGS[name]))
    assert all(a.description for a in arguments)


def test_guard_and_robot_and_policy_are_started_and_required():
    nodes = [a for a in start("policy", replan_steps="4") if isinstance(a, Node)]
    assert [n.node_executable for n in nodes] == ["sim_bridge_node", "guard_node", "policy_node"]
    assert isinstance(nodes[2], LifecycleNode)
    context = LaunchContext()
    context.extend_locals({"event": type("Exited", (), {"returncode": -9})})
    with pytest.raises(GraphError, match="guard_node ended with exit code -9"):
        launching.end_all(context, "guard_node")


def test_autostart_can_be_switched_off():
    on, off = (start("policy", replan_steps="4", autostart=word) for word in ("true", "false"))
    assert len(on) - len(off) == 2, "the handlers that configure and activate"


def test_training_starts_two_nodes_a_worker_and_the_learner():
    actions = start("train", workers="3", out="somewhere")
    nodes = [a for a in actions if isinstance(a, Node)]
    assert [n.node_executable for n in nodes] == ["sim_bridge_node", "guard_node"] * 3
    processes = [a for a in actions if isinstance(a, ExecuteProcess)]
    assert len([a for a in processes if a not in nodes]) == 1, "the learner"


@pytest.mark.parametrize(("discovery", "seen"), [("auto", "LOCALHOST"), ("subnet", "SUBNET")])
def test_who_sees_the_processes_is_said_and_what_follows_is_not_concerned(
    monkeypatch, discovery, seen
):
    for name in (RANGE, "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    context, ranges = LaunchContext(), []
    for action in start("policy", discovery=discovery):
        if isinstance(action, PushEnvironment | SetEnvironmentVariable | PopEnvironment):
            action.execute(context)
        ranges.append((type(action).__name__, os.environ.get(RANGE)))
    assert ("LogInfo", seen) in ranges and ("LifecycleNode", seen) in ranges
    assert ranges[-1] == ("PopEnvironment", None)


def test_a_second_launch_of_running_nodes_is_refused_before_a_node_starts(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "99")
    with claim(node_claim(99, "/arm/guard_node")):
        with pytest.raises(GraphError, match="/arm/guard_node already runs in ROS domain 99"):
            start("policy", namespace="arm")
        start("policy", namespace="other_arm")


def test_arguments_may_be_spelled_as_elsewhere_in_ros():
    nodes = [a for a in start("policy", autostart="True", log_level="INFO") if isinstance(a, Node)]
    assert len(nodes) == 3


@pytest.mark.skipif(not INSTALLED, reason="ros2 launch finds no installed z1_ros")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_node_outlives_ros2_launch(number):
    with contextlib.closing(FreeDomain()) as domain:
        env = {**os.environ, "ROS_DOMAIN_ID": str(domain.id), "PYTHONUNBUFFERED": "1"}
        command = ["ros2", "launch", str(FOLDER / "policy.launch.py"), "robot:=kitchen"]
        pipe = subprocess.PIPE
        launch = subprocess.Popen(
            command,
            env=env,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for line in launch.stdout:
            if "[policy_node]: acting" in line:
                break
        names = [f"/{name}_node" for name in ("sim_bridge", "guard", "policy")]
        claims = [node_claim(domain.id, name) for name in names]
        assert all(map(is_claimed, claims))
        launch.send_signal(number)
        launch.wait()
        launch.stdout.close()
        deadline_s = time.monotonic() + PATIENCE_S
        while any(map(is_claimed, claims)):
            assert time.monotonic() < deadline_s, "a node lives on"
            time.sleep(0.1)


def test_mistakes_are_one_sentence():
    with pytest.raises(ConfigError, match="seed must be int, got 'abc'"):
        start("policy", seed="abc")
    with pytest.raises(ConfigError, match="robot 'franka' is not part of this version"):
        start("policy", robot="franka")
    with pytest.raises(ConfigError, match="no task 'OpenDrawr'"):
        start("train", out="somewhere", task="OpenDrawr")
