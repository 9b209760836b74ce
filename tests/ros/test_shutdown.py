"""Signals: a last hold is really published, exit codes are 0, nothing is left behind."""

import signal
import subprocess
import sys

import pytest
from support.graphs import actions, fake_graph, is_hold, moving

from z1_ros.errors import GraphError
from z1_ros.nodes.process import LAUNCHER

LONG = {"FAKE_HORIZON": "1000000"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_policy_and_guard_end_with_a_hold_and_exit_code_0(number):
    with fake_graph(env=LONG) as runner:
        action, safe = actions(runner, "action"), actions(runner)
        moving(safe)
        runner.client.check = lambda: None
        policy, guard = (runner.processes[name] for name in ("policy_node", "guard_node"))
        policy.send_signal(number)
        action.wait(lambda: policy.poll() is not None, "end of the policy")
        action.silence()
        assert is_hold(action.seen[-1])
        assert policy.returncode == 0
        guard.send_signal(number)
        safe.wait(lambda: guard.poll() is not None, "end of the guard")
        safe.silence()
        assert is_hold(safe.seen[-1])
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nodes_end_with_a_hold_when_their_launcher_dies(number):
    """SIGTERM to ``ros2 launch`` alone left three nodes and a moving arm."""
    launcher = subprocess.Popen(["sleep", "600"])
    with fake_graph(env=LONG | {LAUNCHER: str(launcher.pid)}) as runner:
        safe = actions(runner)
        moving(safe)
        runner.client.check = lambda: None
        launcher.send_signal(number)
        launcher.wait()
        ended = lambda: all(p.poll() == 0 for p in runner.processes.values())  # noqa: E731
        safe.wait(ended, "the end of all nodes")
        safe.silence()
        assert is_hold(safe.seen[-1])


def test_a_node_whose_launcher_is_gone_already_ends_at_once():
    gone = subprocess.Popen(["true"])
    gone.wait()
    with (
        pytest.raises(GraphError, match="ended with exit code 0"),
        fake_graph(env={LAUNCHER: str(gone.pid)}) as runner,
    ):
        safe = actions(runner)
        safe.wait(lambda: False, "never")


ASLEEP = "while True: ctypes.CDLL(None).sleep(600)"
"""Blocks at once, without the interpreter's lock, as a middleware's wait does."""
TEARDOWN = "while threading.active_count() > 1: time.sleep(0.01)\nctypes.PyDLL(None).sleep(600)"
"""Blocks after the signal was seen, with the interpreter's lock, as rclpy's destructors do."""


@pytest.mark.parametrize("stuck", [ASLEEP, TEARDOWN], ids=["asleep", "teardown"])
def test_a_process_that_is_stuck_in_a_library_ends_all_the_same(stuck):
    """Its Python-level signal handlers never run; SIGTERM must still end it and say where."""
    script = (
        "import ctypes, threading, time, z1_ros.nodes.process as signals\n"
        "signals.FORCE_S = 0.3\n"
        "signals.StopRequest().install()\n"
        "print('stuck', flush=True)\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", script + stuck], **pipes)
    assert process.stdout.readline() == "stuck\n"
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 1
    assert f"line {len((script + stuck).splitlines())} in <module>" in said
