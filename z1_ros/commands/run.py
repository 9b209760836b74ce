"""``z1-run``: run the policy's node graph on this machine, without ROS 2 launch."""

import contextlib
import signal
import sys
import threading
from dataclasses import dataclass, field

from z1_ros.graph.dds import describe
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Run the policy's node graph on this machine, without ROS 2 launch."""

    graph: PolicyGraphConfig = field(default_factory=PolicyGraphConfig)
    """Settings of the node graph."""
    own_domain: bool = False
    """Use an unused ROS domain that only this machine can discover, instead of
    ``ROS_DOMAIN_ID``."""


def main(config: RunConfig) -> int:
    """Run until Ctrl-C, SIGTERM, or the end of a node; return the exit code.

    Raises:
        Z1Error: The graph cannot be started, or a node ended unexpectedly.
    """
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    graph = policy_graph(config.graph)
    runner = GraphRunner(graph, own_domain=config.own_domain, echo=sys.stdout, stopping=stopping)
    with contextlib.suppress(KeyboardInterrupt), runner:
        seen = describe(runner.discovery, opens="--graph.discovery subnet")
        print(f"z1-run: ROS domain {runner.domain_id}: {seen}", flush=True)  # noqa: T201
        while True:
            runner.check()
            stopping.wait(0.2)
    return 0
