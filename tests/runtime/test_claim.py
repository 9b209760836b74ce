"""A name is held by one process at a time, and by nobody once that has ended."""

import signal
import subprocess
import sys
import uuid

import pytest

from z1_ros.runtime.claim import claim, is_claimed, node_claim


@pytest.fixture
def name() -> str:
    return f"test {uuid.uuid4()}"


def test_a_name_is_given_once_and_again_after_it_was_let_go(name: str) -> None:
    assert not is_claimed(name)
    held = claim(name)
    assert held is not None and is_claimed(name) and claim(name) is None
    assert not is_claimed(name[:-1]), "a name is not another one's beginning"
    held.close()
    assert not is_claimed(name)
    again = claim(name)
    assert again is not None
    again.close()


def test_a_killed_process_holds_nothing(name: str) -> None:
    code = (
        "import time\n"
        "from z1_ros.runtime.claim import claim\n"
        f"held = claim({name!r})\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    assert claim(name) is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    held = claim(name)
    assert held is not None
    held.close()


def test_nodes_of_two_domains_have_two_names() -> None:
    assert node_claim(1, "/a/policy_node") != node_claim(2, "/a/policy_node")
