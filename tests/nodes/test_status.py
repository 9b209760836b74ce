"""A node's status: changes at once, numbers not too often, once a second for latecomers."""

import pytest

pytest.importorskip("rclpy")

from support.fake_ros import FakeNode

from z1_ros.nodes.status import ERROR, OK, WARN, Status


def said(node: FakeNode, topic: str = "~/status") -> list[str]:
    """Return the sentences that were published."""
    messages = node.publishers_by_topic[topic].messages
    return [getattr(m, "status", [m])[0].message for m in messages]


def test_a_change_is_published_at_once_and_the_same_is_not():
    node = FakeNode("guard_node")
    status = Status(node, lambda: {"n": 1})
    status.set(WARN, "holding: no action for 0.21 s")
    status.set(WARN, "holding: no action for 0.21 s")
    status.set(ERROR, "stopped: emergency stop pressed")
    assert said(node) == ["holding: no action for 0.21 s", "stopped: emergency stop pressed"]
    message = node.publishers_by_topic["~/status"].messages[-1]
    assert (message.name, message.level) == ("/guard_node: state", ERROR)
    assert [(v.key, v.value) for v in message.values] == [("n", "1")]


def test_numbers_inside_a_text_do_not_flood_the_topic():
    node = FakeNode()
    status = Status(node, dict)
    for hundredths in range(50):
        status.set(WARN, f"holding: no action for 0.{hundredths:02} s")
        status.refresh()
    assert len(said(node)) == 1
    assert status.text.endswith("0.49 s"), "the latest is what the timer will say"


def test_each_second_it_is_said_again_also_on_diagnostics():
    node = FakeNode()
    Status(node, dict).set(OK, "acting")
    node.fire()
    assert said(node) == ["acting", "acting"]
    assert said(node, "/diagnostics") == ["acting"]
