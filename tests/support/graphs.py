"""Starts fake graphs on ROS domains of their own and watches their topics."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from z1_ros.graph.dds import environment
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner

FAKES = str(Path(__file__).parent / "fake_nodes.py")


@contextmanager
def fake_graph(
    *, env: dict[str, str] | None = None, only: tuple[str, ...] = (), **settings
) -> Iterator[GraphRunner]:
    """Run the graph with the fake policy and the fake simulator.

    Args:
        env: Environment variables for the nodes.
        only: Names of the nodes to run; empty means all.
        settings: Launch arguments.
    """
    config = PolicyGraphConfig(**({"replan_steps": 4, "image_size": 16} | settings))
    graph = policy_graph(config)
    if only:
        kept = tuple(node for node in graph.nodes if node.name in only)
        graph = replace(graph, nodes=kept)
    commands = {n: [sys.executable, FAKES, n] for n in ("policy_node", "sim_bridge_node")}
    with environment(env or {}), GraphRunner(graph, commands=commands) as runner:
        yield runner


class Watch:
    """Collects messages of a topic with the time they arrived."""

    def __init__(self, runner: GraphRunner, message_type: type, topic: str):
        self.runner = runner
        self.seen: list[tuple[float, object]] = []
        runner.client.subscribe(
            message_type, topic, lambda m: self.seen.append((time.monotonic(), m)), depth=100
        )

    def wait(self, done: Callable[[], object], timeout_s: float = 10.0, what: str = "it") -> object:
        """Collect until ``done()``."""
        return self.runner.client.wait(done, timeout_s, what)

    def collect(self, seconds: float) -> None:
        """Collect for some time."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, seconds + 5)

    def since(self, moment: float) -> list:
        """Return the messages that arrived after ``moment``."""
        return [message for arrived, message in self.seen if arrived > moment]


def actions(runner: GraphRunner, topic: str = "safe_action") -> Watch:
    """Watch an action topic."""
    return Watch(runner, JointState, topic)


def poses(runner: GraphRunner) -> Watch:
    """Watch where the simulated end effector is."""
    return Watch(runner, PoseStamped, "eef_pose")


def place(pose: PoseStamped) -> tuple[float, float, float]:
    """Return a pose's position."""
    p = pose.pose.position
    return p.x, p.y, p.z


def is_hold(action: JointState) -> bool:
    """Whether an action commands no motion; the gripper's dimension aside."""
    return not any(action.position[:6])


def moving(watch: Watch, n: int = 10) -> None:
    """Wait until ``n`` actions that are no holds have come by."""
    watch.wait(lambda: sum(not is_hold(m) for _, m in watch.seen) >= n, 15, "actions of the policy")
