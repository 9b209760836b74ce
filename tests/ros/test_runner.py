"""The plain runner: what dies is named, nothing is left behind, only this machine sees it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support import TESTS
from support.graphs import FAKES, PATIENCE_S, fake_graph

from z1_ros.environ import environment
from z1_ros.errors import GraphError
from z1_ros.graph.dds import RANGE
from z1_ros.graph.domains import FreeDomain
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner
from z1_ros.graph.train_graph import worker_graph
from z1_ros.sim.registry import EnvMaker

LONG = {"FAKE_HORIZON": "1000000"}
MAKER = EnvMaker(simulator="kitchen", task="OpenDrawer", embodiment="panda")
COMMANDS = {"sim_bridge_node": [sys.executable, FAKES, "sim_bridge_node"]}


def environments(runner: GraphRunner) -> list[dict[str, str]]:
    """Return the environment variables of each node's process."""
    found = []
    for process in runner.processes.values():
        lines = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        found.append(dict(line.split("=", 1) for line in lines if "=" in line))
    return found


def listens_on(runner: GraphRunner) -> set[str]:
    """Return the addresses at which the nodes' DDS ports listen."""
    links = [
        str(fd.readlink())
        for process in runner.processes.values()
        for fd in Path(f"/proc/{process.pid}/fd").iterdir()
        if fd.is_symlink()
    ]
    first = 7400 + 250 * runner.domain_id  # RTPS 9.6.2.3
    found = set()
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        address, port = words[1].split(":")
        if f"socket:[{words[9]}]" in links and first <= int(port, 16) < first + 250:
            found.add(socket.inet_ntoa(bytes.fromhex(address)[::-1]))
    return found


def test_nobody_on_the_network_reaches_a_graph_unless_it_is_opened(monkeypatch):
    for name in (RANGE, "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    domain = FreeDomain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain.id))
    for discovery, wanted in (("auto", {"127.0.0.1"}), ("subnet", {"0.0.0.0"})):
        graph = replace(worker_graph(MAKER, 4), discovery=discovery)
        with GraphRunner(graph, own_domain=False, commands=COMMANDS) as runner:
            assert listens_on(runner) >= wanted
            assert discovery == "subnet" or listens_on(runner) == wanted
    domain.close()


def test_a_graph_on_a_domain_of_its_own_is_seen_by_this_machine_only():
    with environment({RANGE: "SUBNET"}), fake_graph(mode="lockstep", discovery="subnet") as runner:
        for env in environments(runner):
            assert env["ROS_DOMAIN_ID"] == str(runner.domain_id)
            assert env[RANGE] == "LOCALHOST"
            assert env["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("fastdds_localhost.xml")


def test_why_a_node_cannot_start_is_its_own_sentence(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("/**: {guard_node: {ros__parameters: {max_age: 0.1}}}")
    says = r"guard_node ended with exit code 1: guard_node has no parameter 'max_age'"
    with (
        pytest.raises(GraphError, match=says),
        fake_graph(mode="lockstep", params_file=str(path)) as runner,
    ):
        runner.client.wait(lambda: False, PATIENCE_S, "nothing")


def test_the_end_of_a_required_node_is_an_error_with_its_words():
    with fake_graph(env=LONG) as runner:
        runner.processes["guard_node"].kill()
        with pytest.raises(GraphError, match=r"guard_node ended with exit code -9"):
            runner.client.wait(lambda: False, PATIENCE_S, "nothing")


@pytest.mark.parametrize("inherited", [signal.default_int_handler, signal.SIG_IGN])
def test_ctrl_c_ends_a_start_up_that_would_take_long_without_force(inherited):
    """Also in the background of a shell script, whose children inherit that SIGINT is ignored."""
    stopping = threading.Event()
    asleep = [sys.executable, "-c", "import time; time.sleep(3600)"]
    graph = policy_graph(PolicyGraphConfig())
    commands = dict.fromkeys((node.name for node in graph.nodes), asleep)
    runner = GraphRunner(graph, commands=commands, stopping=stopping)
    before = signal.signal(signal.SIGINT, inherited)
    threading.Timer(0.5, stopping.set).start()
    try:
        with pytest.raises(KeyboardInterrupt), runner:
            pytest.fail("it started")
    finally:
        signal.signal(signal.SIGINT, before)
    ended = {name: process.returncode for name, process in runner.processes.items()}
    assert ended == dict.fromkeys(commands, -signal.SIGTERM)


def test_killing_the_runner_with_sigkill_leaves_no_process_and_no_file(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from support.graphs import fake_graph\n"
        "import time\n"
        "with fake_graph(mode='lockstep') as runner:\n"
        "    print(*(p.pid for p in runner.processes.values()), flush=True)\n"
        "    time.sleep(3600)\n"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", script, str(TESTS)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    pids = [int(pid) for pid in runner.stdout.readline().split()]
    assert len(pids) == 3
    runner.kill()
    runner.wait()
    while any(alive(pid) for pid in pids):
        time.sleep(0.05)
    assert not list(tmp_path.iterdir())


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
