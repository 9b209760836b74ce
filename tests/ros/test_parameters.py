"""Parameters: unknown ones are errors, files work in any namespace, changes are checked."""

import subprocess
import sys

import pytest
from support.graphs import PATIENCE_S, fake_graph

from z1_ros.config import descriptions
from z1_ros.errors import ConfigError
from z1_ros.nodes.configs import PolicyNodeConfig

FILE = """
/**:
  guard_node:
    ros__parameters:
      guard: {max_age_s: 0.07}
  policy_node:
    ros__parameters:
      camera_max_age_s: 0.33
"""


def test_a_params_file_reaches_namespaced_nodes_and_changes_are_checked(tmp_path):
    from rcl_interfaces.srv import DescribeParameters, GetParameters

    path = tmp_path / "params.yaml"
    path.write_text(FILE)
    with fake_graph(namespace="left_arm", params_file=str(path), mode="lockstep") as runner:
        client = runner.client

        def value(node: str, name: str):
            request = GetParameters.Request(names=[name])
            return client.call(GetParameters, f"{node}/get_parameters", request).values[0]

        assert value("guard_node", "guard.max_age_s").double_value == 0.07
        assert value("policy_node", "camera_max_age_s").double_value == 0.33
        assert client.node.count_publishers("/left_arm/safe_action") == 1
        with pytest.raises(ConfigError, match=r"camera_max_age_s out of range"):
            client.set_parameters("policy_node", {"camera_max_age_s": 99.0})
        with pytest.raises(
            ConfigError, match=r"setting 'qos' is 'fast'\. Known: auto, best_effort, reliable"
        ):
            client.set_parameters("policy_node", {"qos": "fast"})
        with pytest.raises(ConfigError, match="read-only"):
            client.set_parameters("guard_node", {"mode": "realtime"})
        with pytest.raises(ConfigError, match="replan_steps is read when the node is configured"):
            client.set_parameters("policy_node", {"replan_steps": 2})
        client.set_parameters("policy_node", {"instruction": "close the drawer"})
        heard = lambda: client.status("policy_node")[1]["instruction"]  # noqa: E731
        client.wait(lambda: heard() == "close the drawer", PATIENCE_S, "it applies at once")
        request = DescribeParameters.Request(names=["camera_max_age_s"])
        name = "policy_node/describe_parameters"
        described = client.call(DescribeParameters, name, request).descriptors[0]
        assert described.description == descriptions(PolicyNodeConfig)["camera_max_age_s"]
        assert described.floating_point_range[0].to_value == 10.0
        assert client.run_episode("OpenDrawer", 10_000, timeout_s=PATIENCE_S).success


@pytest.mark.parametrize("node", ["policy_node", "guard_node", "sim_bridge_node"])
def test_an_unknown_parameter_is_one_sentence_and_exit_code_1(node):
    command = [sys.executable, "-m", f"z1_ros.nodes.{node}", "--ros-args", "-p", "modee:=x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"error: {node} has no parameter 'modee'. Known: " in done.stderr
    assert "Did you mean 'mode'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_graph_in_the_same_domain_ends_itself_and_leaves_the_first_alone():
    with fake_graph(mode="lockstep") as runner:
        guard = next(node for node in runner.graph.nodes if node.name == "guard_node")
        environment = runner._environment(guard)
        command = [sys.executable, "-m", "z1_ros.nodes.guard_node"]
        twin = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=20, check=False
        )
        assert twin.returncode == 1
        assert "another /guard_node is already running in ROS domain" in twin.stderr
        assert runner.client.run_episode("OpenDrawer", 10_000, timeout_s=PATIENCE_S).success


def test_an_unknown_task_is_refused_by_name():
    graph = {"mode": "lockstep", "env": {"FAKE_TASKS": "OpenDrawer"}}
    with fake_graph(**graph) as runner:
        with pytest.raises(ConfigError, match="no task 'OpenDoor'"):
            runner.client.set_parameters("sim_bridge_node", {"task": "OpenDoor"})
        runner.client.trigger("sim_bridge_node/reset")
