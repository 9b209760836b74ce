"""Signals: a last hold is really published, exit codes are 0, nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from support import TESTS
from support.graphs import actions, fake_graph, is_hold, moving

from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner

LONG = {"FAKE_HORIZON": "1000000"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_policy_and_guard_end_with_a_hold_and_exit_code_0(number):
    with fake_graph(env=LONG) as runner:
        action, safe = actions(runner, "action"), actions(runner)
        moving(safe)
        runner.client.check = lambda: None
        policy, guard = (runner.processes[name] for name in ("policy_node", "guard_node"))
        policy.send_signal(number)
        action.wait(lambda: policy.poll() is not None, 5, "end of the policy")
        action.collect(0.1)
        assert is_hold(action.seen[-1][1])
        assert policy.returncode == 0
        guard.send_signal(number)
        safe.wait(lambda: guard.poll() is not None, 5, "end of the guard")
        safe.collect(0.1)
        assert is_hold(safe.seen[-1][1])
        assert guard.returncode == 0
        assert runner.stop() == dict.fromkeys(runner.processes, 0)


def test_a_signal_that_comes_twice_at_once_is_one_request():
    """Ctrl-C reaches the whole process group, and ROS 2's launch passes it on once more."""
    with fake_graph(env=LONG) as runner:
        safe = actions(runner)
        moving(safe)
        for process in runner.processes.values():
            process.send_signal(signal.SIGINT)
        for process in runner.processes.values():
            process.send_signal(signal.SIGINT)
        assert runner.stop() == dict.fromkeys(runner.processes, 0)


def test_a_process_that_is_stuck_in_a_library_ends_all_the_same():
    """Its Python-level signal handlers never run; SIGTERM must still end it."""
    script = (
        "import ctypes, z1_ros.nodes.process as signals\n"
        "signals.FORCE_S = 0.3\n"
        "signals.StopRequest().install()\n"
        "print('stuck', flush=True)\n"
        "while True: ctypes.CDLL(None).sleep(60)\n"
    )
    stuck = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert stuck.stdout.readline() == "stuck\n"
    stuck.terminate()
    assert stuck.wait() == 1


def test_the_end_of_a_required_node_is_an_error_with_its_words():
    with fake_graph(env=LONG) as runner:
        runner.processes["guard_node"].kill()
        with pytest.raises(Exception, match=r"guard_node ended with exit code -9"):
            runner.client.wait(lambda: False, 5, "nothing")


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
