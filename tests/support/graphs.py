"""Starts fake graphs on ROS domains of their own and watches their topics.

A test here must hold on a machine that is busy with other things: it waits for conditions, and
judges by the stamps of messages and their order, never by when they arrived.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from z1_ros.environ import environment
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner
from z1_ros.nodes.messages import to_ns

PATIENCE_S = 60.0
"""Longest wait for a condition [s]; a busy machine may take ten times as long as an idle one."""
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
    """Collects the messages of a topic, in the order in which they were published."""

    def __init__(self, runner: GraphRunner, message_type: type, topic: str):
        self.runner = runner
        self.seen: list = []
        runner.client.subscribe(message_type, topic, self.seen.append, depth=1000)

    def wait(self, done: Callable[[], object], what: str) -> object:
        """Collect until ``done()``."""
        return self.runner.client.wait(done, PATIENCE_S, what)

    def collect(self, seconds: float) -> None:
        """Collect for some time: long enough for what should not happen to happen."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, "some time")

    def silence(self, seconds: float = 0.5) -> None:
        """Collect until nothing has come for some time."""
        count, since = len(self.seen), time.monotonic()

        def silent() -> bool:
            nonlocal count, since
            if len(self.seen) != count:
                count, since = len(self.seen), time.monotonic()
            return time.monotonic() - since > seconds

        self.wait(silent, "silence")

    def after(self, stamp_ns: int, n: int = 0) -> list:
        """Return the messages from the first one on that is stamped later, once there are ``n``."""

        def found() -> list:
            late = (i for i, m in enumerate(self.seen) if to_ns(m.header.stamp) > stamp_ns)
            return self.seen[next(late, len(self.seen)) :]

        self.wait(lambda: len(found()) >= n, f"{n} messages stamped later")
        return found()

    def more(self, n: int) -> list:
        """Forget what came before and return the next ``n`` messages."""
        self.seen.clear()
        self.wait(lambda: len(self.seen) >= n, f"{n} more messages")
        return list(self.seen)


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
    watch.wait(lambda: sum(not is_hold(m) for m in watch.seen) >= n, "actions of the policy")
