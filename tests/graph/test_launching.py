"""The launch files where ROS 2's launch is absent; tests/ros/test_launch.py is about the rest."""

import dataclasses
import importlib.util
import sys
from unittest.mock import MagicMock

import pytest
from support import ROOT

from z1_ros.config import flatten, unflatten
from z1_ros.errors import ConfigError
from z1_ros.graph.policy_graph import PolicyGraphConfig
from z1_ros.graph.train_graph import TrainGraphConfig

FOLDER = ROOT / "launch"
CONFIGS = {"policy": PolicyGraphConfig(), "train": TrainGraphConfig()}
LAUNCHING = "z1_ros.graph.launching"
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
def launching(monkeypatch):
    """What launch files share, with ROS's modules replaced."""
    for name in ROS:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    monkeypatch.delitem(sys.modules, LAUNCHING, raising=False)
    yield importlib.import_module(LAUNCHING)
    sys.modules.pop(LAUNCHING)


def launch_file(name: str):
    """Return a launch file as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_launch", FOLDER / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def context_with(config: object, **given) -> MagicMock:
    """Return a launch context in which arguments have values."""
    values = {name: str(value) for name, value in flatten(config).items()}
    context = MagicMock()
    context.launch_configurations = values | given
    return context


def started(action: MagicMock, word: str) -> list:
    """Return what each call of a replaced class was given as ``word``."""
    return [call.kwargs[word] for call in action.call_args_list]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_an_argument_whose_default_can_be_read_back(launching, name):
    launch_file(name).generate_launch_description()
    declared = {
        call.args[0]: call.kwargs for call in launching.DeclareLaunchArgument.call_args_list
    }
    fields = flatten(CONFIGS[name])
    assert set(declared) == set(fields)
    for field, default in fields.items():
        given = declared[field]
        assert launching.parse(field, given["default_value"], default) == default
        assert given["description"]
        assert given["default_value"] in given.get("choices", [given["default_value"]])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_choice_that_the_config_refuses_is_not_offered(launching, name):
    config = CONFIGS[name]
    launch_file(name).generate_launch_description()
    for call in launching.DeclareLaunchArgument.call_args_list:
        field = call.args[0]
        for choice in call.kwargs.get("choices", []):
            unflatten(config, {field: launching.parse(field, choice, getattr(config, field))})


def test_mistakes_are_one_sentence(launching):
    known = flatten(PolicyGraphConfig())
    with pytest.raises(ConfigError, match="launch argument seed must be int, got 'abc'"):
        launching.parse("seed", "abc", 0)
    argv = ["ros2", "/share/policy.launch.py", "modell:=x"]
    with pytest.raises(ConfigError, match=r"unknown launch argument 'modell'.*'model'"):
        launching.refuse_unknown_arguments(argv, "policy.launch.py", known)
    launching.refuse_unknown_arguments(argv, "other.launch.py", known)
    with pytest.raises(ConfigError, match="out is empty; name the bundle to write"):
        launch_file("train").start(context_with(TrainGraphConfig()))
    with pytest.raises(ConfigError, match="task is 'all', expected one task"):
        launch_file("train").start(context_with(TrainGraphConfig(), out="somewhere", task="all"))


def test_as_many_workers_are_started_as_the_learner_uses_by_itself():
    pytest.importorskip("torch")
    from z1_ros.learning.grpo.config import Z1Config

    fields = {field.name: field for field in dataclasses.fields(Z1Config)}
    assert TrainGraphConfig().workers == fields["workers"].default


def test_every_node_of_the_graph_becomes_an_action(launching):
    launch_file("policy").start(context_with(PolicyGraphConfig()))
    calls = [*launching.Node.call_args_list, *launching.LifecycleNode.call_args_list]
    names = {call.kwargs["executable"] for call in calls}
    assert names == {"sim_bridge_node", "guard_node", "policy_node"}
    assert all("on_exit" in call.kwargs and "respawn" not in call.kwargs for call in calls)


@pytest.mark.parametrize(("discovery", "seen"), [("auto", "LOCALHOST"), ("subnet", "SUBNET")])
@pytest.mark.parametrize("name", CONFIGS)
def test_only_this_machine_sees_the_processes_unless_an_argument_opens_them(
    launching, monkeypatch, name, discovery, seen
):
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    config = CONFIGS[name]
    given = {"discovery": discovery} | ({"out": "somewhere"} if name == "train" else {})
    launch_file(name).start(context_with(config, **given))
    started_as = [launching.Node, launching.LifecycleNode, launching.ExecuteProcess]
    envs = [env for action in started_as for env in started(action, "additional_env")]
    assert envs and {env["ROS_AUTOMATIC_DISCOVERY_RANGE"] for env in envs} == {seen}
    (said,) = started(launching.LogInfo, "msg")
    assert ("only this machine" if seen == "LOCALHOST" else "the whole network") in said


def test_every_worker_becomes_a_simulator_and_a_guard_and_the_learner_joins_them(launching):
    given = {"out": "/tmp/out", "workers": "2", "options": "--minutes 0 --run 'a b'"}
    launch_file("train").start(context_with(TrainGraphConfig(), **given))
    node = launching.Node
    names = list(zip(started(node, "namespace"), started(node, "executable"), strict=True))
    wanted = [(f"worker{i}", name) for i in range(2) for name in ("sim_bridge_node", "guard_node")]
    assert names == wanted
    assert started(node, "respawn") == [True] * 4
    assert ("/clock", "clock") in started(node, "remappings")[0]
    (command,) = started(launching.ExecuteProcess, "cmd")
    words = " ".join(command)
    assert "--through ros --attach worker" in words
    assert "--workers 2" in words and "--out /tmp/out" in words
    assert command[-4:] == ["--minutes", "0", "--run", "a b"]
