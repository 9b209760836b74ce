"""Hand-made actions against the guard process: what must not move a robot does not, by name."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise

import numpy as np
import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from support.graphs import Watch, actions, fake_graph, is_hold

from z1_ros.nodes.messages import action_message
from z1_ros.nodes.qos import COMMAND
from z1_ros.specs import PANDA

HOUR_NS = 3600 * 10**9
now = time.time_ns


class Attack:
    """The guard alone, and whoever publishes actions to it."""

    def __init__(self, runner):
        self.runner, self.client = runner, runner.client
        self.safe: Watch = actions(runner)
        self.publish = self.publisher()

    def publisher(self) -> Callable[..., None]:
        """Return a function that publishes an action, like one more policy."""
        publisher = self.client.node.create_publisher(JointState, "action", COMMAND)
        self.safe.wait(publisher.get_subscription_count, "the guard listens")

        def publish(value: float = 0.5, stamp_ns: int | None = None, frame_id: str = "a") -> None:
            action = np.zeros(PANDA.action_dim, np.float32)
            action[0] = value
            stamp_ns = now() if stamp_ns is None else stamp_ns
            publisher.publish(action_message(action, PANDA.action_dims, stamp_ns, frame_id))

        return publish

    def says(self, part: str) -> Callable[[], bool]:
        """Return a condition: the guard's status contains ``part``."""
        return lambda: part in self.client.status("guard_node")[0]

    @property
    def counts(self) -> dict[str, str]:
        """The guard's numbers."""
        return self.client.status("guard_node")[1]

    def until(self, publish: Callable[[], None], done: Callable[[], object], what: str) -> None:
        """Publish at the robot's rate until something is true."""
        due = time.monotonic()

        def step() -> object:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + 0.05
                publish()
            return done()

        self.safe.wait(step, what)

    def holds(self, publish: Callable[[], None]) -> bool:
        """Publish; return whether all is a hold from now on, by the stamps of what comes.

        What was let through before may still be on its way.
        """
        moment_ns = now()
        self.until(publish, lambda: len(self.safe.after(moment_ns)) > 5, "what comes later")
        return all(is_hold(action) for action in self.safe.after(moment_ns))


@contextmanager
def guard_alone(parameters: str = "", tmp_path=None) -> Iterator[Attack]:
    """Run the guard; ``parameters`` are lines of YAML."""
    settings = {}
    if parameters:
        file = tmp_path / "guard.yaml"
        file.write_text(f"/**:\n  ros__parameters:\n    {parameters}\n", "utf-8")
        settings["params_file"] = str(file)
    with fake_graph(only=("guard_node",), **settings) as runner:
        yield Attack(runner)


@pytest.fixture(scope="module")
def guard():
    """One guard for all attacks that it survives without a stop."""
    with guard_alone() as attack:
        yield attack


def moved(attack: Attack) -> bool:
    return any(not is_hold(action) for action in attack.safe.seen)


def test_good_actions_pass(guard):
    guard.until(guard.publish, lambda: moved(guard), "motion")
    guard.until(guard.publish, guard.says("passing actions"), "a name")


@pytest.mark.parametrize(
    ("stamp_ns", "says"),
    [
        (lambda: now() - HOUR_NS, "action refused: it is stamped 36"),
        (lambda: now() + HOUR_NS, "action refused: it is stamped 3"),
        (lambda: 0, "action refused: it carries no stamp"),
    ],
    ids=["an hour ago", "in an hour", "none"],
)
def test_a_replayed_recording_does_not_move_the_robot(guard, stamp_ns, says):
    guard.until(lambda: guard.publish(stamp_ns=stamp_ns()), guard.says(says), "a name")
    assert guard.holds(lambda: guard.publish(stamp_ns=stamp_ns()))


def test_a_stamp_that_never_advances_is_refused(guard):
    publish, stamp_ns = guard.publish, now()
    guard.until(lambda: publish(stamp_ns=stamp_ns), guard.says("refused: it is stamped "), "name")
    assert guard.holds(lambda: publish(stamp_ns=stamp_ns))


def test_more_actions_than_the_robot_takes_are_dropped(guard):
    """Each may be a whole step further: 80 a second would be four times too fast."""
    publish, before = guard.publish, int(guard.counts["passed"])
    guard.safe.seen.clear()
    began_s, number = time.monotonic(), count()
    for _ in number:
        publish(value=0.5)
        time.sleep(0.0125)
        if time.monotonic() - began_s > 2.0:
            break
    sent, took_s = next(number), time.monotonic() - began_s
    guard.safe.wait(lambda: int(guard.counts["too_many"]) > 0, "they are counted")
    passed = int(guard.counts["passed"]) - before
    assert passed <= 1.1 * PANDA.control_hz * took_s + 4 < sent


def test_another_frame_id_does_not_lift_the_rate_limit(guard):
    publish, signs = guard.publish, count()

    def zigzag() -> None:
        number = next(signs)
        publish(value=(-1.0) ** number, frame_id=str(number))

    guard.safe.seen.clear()
    guard.until(zigzag, lambda: len(guard.safe.seen) > 20, "actions")
    values = [action.position[0] for action in guard.safe.seen]
    assert max(abs(a - b) for a, b in pairwise(values)) <= 1.0


def test_two_publishers_that_take_turns_are_a_stop():
    with guard_alone() as guard:
        one, two = guard.publish, guard.publisher()
        for _ in range(5):
            one()
            time.sleep(0.05)
        guard.until(lambda: (one(0.5), two(-0.5)), guard.says("stopped: two publishers"), "a stop")
        guard.safe.wait(lambda: is_hold(guard.safe.seen[-1]), "a hold")


def test_a_malformed_action_of_another_episode_does_not_silence_a_stop():
    with guard_alone() as guard:
        publish = guard.publish
        guard.until(publish, lambda: moved(guard), "motion")
        button = guard.client.node.create_publisher(Bool, "estop", 1)
        guard.safe.wait(button.get_subscription_count, "the guard listens")
        guard.until(
            lambda: button.publish(Bool(data=True)), guard.says("stopped: emergency"), "a stop"
        )
        publish(float("nan"), frame_id="another")
        guard.safe.seen.clear()
        assert all(is_hold(action) for action in guard.safe.more(5))


def test_a_guard_that_was_started_again_holds_until_the_button_is_heard(tmp_path):
    with guard_alone("start_held: true", tmp_path) as guard:
        publish = guard.publish
        guard.until(publish, guard.says("stopped: the guard has just started"), "a hold")
        guard.until(publish, lambda: int(guard.counts["stopped"]) > 5, "holds")
        assert not moved(guard)
        button = guard.client.node.create_publisher(Bool, "estop", 1)
        guard.safe.wait(button.get_subscription_count, "the guard listens")
        button.publish(Bool(data=False))
        guard.until(publish, lambda: moved(guard), "motion")


def test_an_operator_may_say_go_instead(tmp_path):
    with guard_alone("start_held: true", tmp_path) as guard:
        publish = guard.publish
        guard.until(publish, guard.says("stopped: the guard has just started"), "a hold")
        assert guard.client.trigger("guard_node/reset").startswith("released: the guard has just")
        guard.until(publish, lambda: moved(guard), "motion")


def test_a_button_that_falls_silent_is_a_stop(tmp_path):
    with guard_alone("estop_timeout_s: 1.0", tmp_path) as guard:
        button = guard.client.node.create_publisher(Bool, "estop", 1)
        publish, quiet = guard.publish, threading.Event()

        def act() -> None:
            if not quiet.is_set():
                button.publish(Bool(data=False))
            publish()

        guard.until(act, lambda: moved(guard) or guard.says("stopped")(), "motion or a stop")
        if guard.says("stopped")():  # a busy machine took a second for the first message
            guard.client.trigger("guard_node/reset")
        quiet.set()
        guard.until(act, guard.says("stopped: nothing on estop for more than 1.0 s"), "a stop")
