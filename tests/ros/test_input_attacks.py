"""A robot made by hand against the policy process: it holds, by name, on what cannot be true."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from support.fakes import FakeEnv
from support.graphs import Watch, actions, fake_graph, is_hold

from z1_ros.nodes.messages import (
    EEF_POSE,
    image_message,
    joint_states_message,
    pose_message,
    to_stamp,
)
from z1_ros.specs import PANDA

PERIOD_S = 1 / PANDA.control_hz
HOUR_NS = 3600 * 10**9
CAMERA = PANDA.cameras[0]


class Robot:
    """Publishes what a robot would, 20 times a second, after ``spoil`` has changed it."""

    def __init__(self, runner):
        self.client = runner.client
        make = runner.client.node.create_publisher
        self.publishers = {
            "joints": make(JointState, "joint_states", 2),
            "pose": make(PoseStamped, "eef_pose", 2),
            **{c: make(Image, f"camera/{c}/image", 2) for c in PANDA.cameras},
        }
        self.words = make(String, "instruction", 2)
        self.spoil: Callable[[SimpleNamespace], None] = lambda messages: None
        self.watch: Watch = actions(runner, "action")
        self._due_s = 0.0
        env = FakeEnv()
        self._state = env.read_state().state
        self._images = {c: env.render(c, 16) for c in PANDA.cameras}

    def publish(self) -> None:
        """Publish one observation."""
        now_ns = time.time_ns()
        messages = SimpleNamespace(
            joints=joint_states_message(self._state, PANDA, now_ns, 0),
            pose=pose_message(self._state, EEF_POSE, now_ns),
            **{c: image_message(self._images[c], c, now_ns) for c in PANDA.cameras},
        )
        self.spoil(messages)
        for name, publisher in self.publishers.items():
            publisher.publish(getattr(messages, name))

    def says(self) -> str:
        """Return the policy's status."""
        return self.client.status("policy_node")[0]

    def until(self, done: Callable[[], object], what: str) -> None:
        """Publish until something is true."""

        def step() -> object:
            if time.monotonic() >= self._due_s:
                self._due_s = time.monotonic() + PERIOD_S
                self.publish()
            return done()

        self.watch.wait(step, what)

    def holds(self) -> bool:
        """Publish; return whether all is a hold from now on, by the stamps of what comes.

        Actions from before may still be on their way.
        """
        moment_ns = time.time_ns()
        self.until(lambda: len(self.watch.after(moment_ns)) > 5, "what comes later")
        return all(is_hold(action) for action in self.watch.after(moment_ns))

    def acts(self) -> None:
        """Publish what is true until the policy acts."""
        self.spoil = lambda messages: None
        self.until(lambda: self.says() == "acting", "it acts")


@pytest.fixture(scope="module")
def robot():
    """A robot that the policy drives."""
    with fake_graph(only=("guard_node", "policy_node")) as runner:
        robot = Robot(runner)
        everybody = (robot.words, *robot.publishers.values())
        robot.watch.wait(
            lambda: all(p.get_subscription_count() for p in everybody), "the policy listens"
        )
        robot.words.publish(String(data="open the drawer"))
        robot.acts()
        yield robot


def stamped(offset_ns: int | None, *names: str) -> Callable[[SimpleNamespace], None]:
    """Return a spoiler of stamps: later by ``offset_ns``, or None for no stamp."""

    def spoil(messages: SimpleNamespace) -> None:
        stamp_ns = 0 if offset_ns is None else time.time_ns() + offset_ns
        for name in names or vars(messages):
            getattr(messages, name).header.stamp = to_stamp(stamp_ns)

    return spoil


def frozen(name: str) -> Callable[[SimpleNamespace], None]:
    """Return a spoiler that always gives the stamp of now."""
    stamp = to_stamp(time.time_ns())
    return lambda messages: setattr(getattr(messages, name).header, "stamp", stamp)


def spoiled(name: str, change: Callable) -> Callable[[SimpleNamespace], None]:
    """Return a spoiler of one message."""
    return lambda messages: change(getattr(messages, name))


def turned(factor: float) -> Callable[[PoseStamped], None]:
    """Return a change of a quaternion's length."""

    def change(message: PoseStamped) -> None:
        q = message.pose.orientation
        q.x, q.y, q.z, q.w = (factor * v for v in (q.x, q.y, q.z, q.w))

    return change


def position(index: int, value: float) -> Callable[[JointState], None]:
    """Return a change of one joint."""
    return lambda message: message.position.__setitem__(index, value)


def in_mm(message: PoseStamped) -> None:
    """Say millimetres."""
    message.pose.position.x, message.pose.position.z = 450.0, 300.0


def filled(pixels: np.ndarray) -> Callable[[SimpleNamespace], None]:
    """Return a spoiler with another image."""
    return lambda m: setattr(m, CAMERA, image_message(pixels, CAMERA, time.time_ns()))


FAULTS = {
    "all 5 s old": (stamped(-5 * 10**9), "joint_states is stamped 5.0"),
    "all an hour ahead": (stamped(HOUR_NS), "in the future"),
    "no stamp": (stamped(None), "carries no stamp"),
    "pose 5 s old": (stamped(-5 * 10**9, "pose"), "eef_pose is stamped 5.0"),
    "camera an hour ago": (stamped(-HOUR_NS, CAMERA), f"camera {CAMERA!r} is stamped 3600.0"),
    "other frame": (
        spoiled("pose", lambda m: setattr(m.header, "frame_id", "world")),
        "eef_pose is in frame 'world'",
    ),
    "quaternion x 5": (spoiled("pose", turned(5.0)), "its quaternion has norm 5"),
    "quaternion 0": (spoiled("pose", turned(0.0)), "its quaternion has norm 0"),
    "mm": (spoiled("pose", in_mm), "end_effector_position_relative number 1 is 450"),
    "joint at 9 rad": (spoiled("joints", position(2, 9.0)), "joint_position number 3 is 9"),
    "finger": (spoiled("joints", position(7, 1e6)), "gripper_qpos number 1 is 1e+06"),
    "nan": (spoiled("joints", position(4, float("nan"))), "panda_joint5 is at nan"),
    "black": (filled(np.zeros((16, 16, 3), np.uint8)), f"camera {CAMERA!r} is black"),
    "one pixel": (filled(np.full((1, 1, 3), 99, np.uint8)), "sends 1 x 1 pixels"),
    "size": (filled(np.full((32, 32, 3), 99, np.uint8)), "changed its size from 16 x 16"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_true_is_a_named_hold_and_ends_with_its_cause(robot, fault):
    robot.acts()
    robot.spoil, name = FAULTS[fault]
    robot.until(lambda: robot.says().startswith("holding: ") and name in robot.says(), name)
    assert robot.holds()
    robot.acts()


@pytest.mark.parametrize("name", ["joints", "pose", CAMERA])
def test_a_stamp_that_never_advances_is_a_named_hold(robot, name):
    robot.acts()
    robot.spoil = frozen(name)
    # By now it is old, too; whichever is found first is the name.
    robot.until(lambda: "is stamped" in robot.says() or "repeats" in robot.says(), "a name")
    robot.acts()


def test_a_jump_is_a_stop_that_only_an_operator_ends(robot):
    robot.acts()
    robot.spoil = spoiled(
        "pose",
        lambda m: setattr(m.pose.position, "x", -1.0 if m.pose.position.x > 0 else 1.0),
    )
    robot.until(lambda: "stopped: end_effector_position_relative jumped" in robot.says(), "a stop")
    assert robot.holds()
    robot.client.trigger("policy_node/start")
    robot.until(lambda: robot.says() == "acting", "it acts from there")
    robot.watch.seen.clear()
    robot.until(lambda: len(robot.watch.seen) > 5, "actions")
    robot.spoil = lambda messages: None
    robot.until(lambda: "jumped" in robot.says(), "the way back is a jump, too")
    robot.until(lambda: "stopped" in robot.says(), "a stop")
    robot.client.trigger("policy_node/start")
    moved = lambda: any(not is_hold(a) for a in robot.watch.seen[-3:])  # noqa: E731
    robot.until(moved, "motion")
