"""Values survive the way through messages exactly; names, not positions, decide."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy")
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

from sensor_msgs.msg import Image, JointState
from support.fakes import FakeEnv

from z1_ros.errors import ActionError, ConfigError, ObservationError
from z1_ros.nodes import messages
from z1_ros.specs import PANDA, PANDA_OMRON, Embodiment, Field

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact_to_the_nanosecond(ns):
    assert messages.to_ns(messages.to_stamp(ns)) == ns


def test_an_image_survives_bit_for_bit():
    message = messages.image_message(PICTURE, "wrist", 12)
    assert (message.encoding, message.step, message.header.frame_id) == (
        "rgb8",
        21,
        "wrist_optical_frame",
    )
    assert messages.image_array(message, "wrist").tobytes() == PICTURE.tobytes()


def encoded(encoding: str, pixels: np.ndarray, pad: int = 0) -> Image:
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, pad)), constant_values=99)
    return Image(
        height=height, width=width, encoding=encoding, step=rows.shape[1], data=rows.tobytes()
    )


ALPHA = np.full((5, 7, 1), 200, np.uint8)


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", PICTURE),
        ("bgr8", PICTURE[..., ::-1]),
        ("rgba8", np.concatenate([PICTURE, ALPHA], 2)),
        ("bgra8", np.concatenate([PICTURE[..., ::-1], ALPHA], 2)),
    ],
)
def test_every_encoding_becomes_rgb_whatever_the_row_padding(encoding, pixels, pad):
    read = messages.image_array(encoded(encoding, pixels, pad), "wrist")
    assert read.tobytes() == PICTURE.tobytes()
    assert read.shape == PICTURE.shape


def test_grey_becomes_three_equal_channels():
    read = messages.image_array(encoded("mono8", PICTURE[..., :1]), "wrist")
    assert (read == PICTURE[..., :1]).all()


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (encoded("16UC1", PICTURE[..., :2]), "camera 'wrist' sends encoding '16UC1'. Known: bgr8"),
        (Image(height=5, width=7, encoding="rgb8", step=21, data=bytes(20)), "sends 20 bytes"),
        (Image(height=5, width=7, encoding="rgb8", step=7, data=bytes(35)), "with step 7"),
        (Image(encoding="rgb8"), "sends 0 bytes"),
    ],
)
def test_a_malformed_image_is_one_sentence(message, says):
    with pytest.raises(ObservationError) as caught:
        messages.image_array(message, "wrist")
    assert says in str(caught.value)


@pytest.mark.parametrize("robot", [PANDA, PANDA_OMRON], ids=lambda robot: robot.name)
def test_the_state_survives_bit_for_bit_in_any_order_of_joints(robot):
    state = FakeEnv(embodiment=robot).read_state().state
    joints = messages.joint_states_message(state, robot, 5, 3)
    order = np.random.default_rng(1).permutation(len(joints.name))
    shuffled = JointState(
        name=[*(joints.name[i] for i in order), "elevator"],
        position=[*(joints.position[i] for i in order), 9.0],
    )
    read = messages.read_joint_states(shuffled, robot)
    for pose in messages.pose_topics(robot.state):
        read |= messages.read_pose(messages.pose_message(state, pose, 5), pose)
    assert {k: v.tobytes() for k, v in read.items()} == {k: v.tobytes() for k, v in state.items()}
    assert messages.origin_of(joints.header.frame_id) == 3


def test_only_poses_that_are_in_the_state_have_a_topic():
    topics = lambda fields: [pose.topic for pose in messages.pose_topics(fields)]  # noqa: E731
    assert topics(PANDA.state) == ["eef_pose"]
    assert topics(PANDA_OMRON.state) == ["eef_pose", "base_pose"]
    assert topics(PANDA_OMRON.state[:1]) == []


@pytest.mark.parametrize(
    "frame_id", ["", "panda_link0", "origin_ns=", "origin_ns=x", "origin_ns=-1"]
)
def test_joint_states_of_a_real_robot_begin_at_zero(frame_id):
    assert messages.origin_of(frame_id) == 0


def test_a_missing_joint_is_named():
    message = JointState(name=["panda_joint1", "fr3_joint2"], position=[0.0, 0.0])
    with pytest.raises(ObservationError, match="lacks joint 'panda_joint2'"):
        messages.read_joint_states(message, PANDA)
    with pytest.raises(ObservationError, match="1 names and 0 positions"):
        messages.read_joint_states(JointState(name=["panda_joint1"]), PANDA)


def test_a_state_field_without_a_topic_is_refused():
    odd = Field(name="torque", dims=("a",), unit="Nm")
    robot = Embodiment(
        name="odd", cameras=(), state=(odd,), action=(), control_hz=1.0, joint_names=(),
        gripper_joint_names=(),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="no topic carries state field 'torque'"):
        messages.check_state_sources(robot)
    messages.check_state_sources(PANDA_OMRON)


def test_an_action_survives_with_its_names():
    action = np.linspace(-1, 1, 7, dtype=np.float32)
    message = messages.action_message(action, PANDA.action_dims, 7, "origin_ns=1")
    values, dims = messages.read_action(message)
    assert (values.tobytes(), dims) == (action.tobytes(), PANDA.action_dims)
    message.name.pop()
    with pytest.raises(ActionError, match="6 names and 7 values"):
        messages.read_action(message)


def test_status_values_are_text():
    message = messages.status_message("a", b"\x01", "why", {"n": 3, "ok": True, "ms": 1.23456})
    assert messages.status_values(message) == {"n": "3", "ok": "true", "ms": "1.235"}
