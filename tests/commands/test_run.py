"""``z1-run``: says who sees the graph, and ends with Ctrl-C."""

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from z1_ros.graph.dds import RANGE
from z1_ros.graph.domains import FreeDomain

START = "from z1_ros.commands.entry import run; raise SystemExit(run())"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "only this machine sees the graph; --graph.discovery subnet opens it to the network"),
        (["--graph.discovery", "subnet"], "the whole network sees the graph"),
    ],
)
def test_it_says_who_sees_the_graph_and_ends_with_ctrl_c(flags, says):
    domain = FreeDomain()
    env = {**os.environ, "ROS_DOMAIN_ID": str(domain.id)}
    env.pop(RANGE, None)
    command = [sys.executable, "-c", START, "--graph.mode", "lockstep", *flags]
    running = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    said = ""
    for line in running.stdout:
        said += line
        if line.startswith("z1-run: "):
            break
    running.send_signal(signal.SIGINT)
    running.stdout.read()
    assert running.wait(30) == 0
    domain.close()
    assert f"z1-run: ROS domain {domain.id}: {says}" in said
