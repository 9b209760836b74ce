"""What cannot be true is named, and what a robot really does is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z1_ros.errors import ObservationError, StateJump
from z1_ros.runtime.plausible import (
    ImageWatch,
    PublisherWatch,
    StampWatch,
    StateWatch,
    state_limits,
)

MS = 1_000_000
HOUR_NS = 3600 * 1000 * MS
HOME = {
    "joint_position": np.float32([0, 0.2, 0, -2, 0, 2.2, 0.8]),
    "end_effector_position_relative": np.float32([0.5, 0, 0.4]),
    "end_effector_rotation_relative": np.float32([1, 0, 0, 0]),
    "gripper_qpos": np.float32([0.04, -0.04]),
}


def at(stamp_ms: int) -> dict[str, int]:
    """Return one stamp for every field."""
    return dict.fromkeys(HOME, stamp_ms * MS)


def heard(*stamps_ms: int, period_s: float = 0.05) -> tuple[StampWatch, float]:
    """Return a watch that heard these stamps, one per period, and the time of the last."""
    watch = StampWatch(max_age_s=0.2, max_ahead_s=0.1)
    for i, stamp in enumerate(stamps_ms):
        watch.add(stamp * MS, i * period_s)
    return watch, (len(stamps_ms) - 1) * period_s


@given(jitter_ms=st.lists(st.integers(-40, 40), min_size=2, max_size=50))
def test_stamps_of_a_working_driver_are_never_a_fault(jitter_ms):
    watch = StampWatch(max_age_s=0.2, max_ahead_s=0.1)
    for i, jitter in enumerate(jitter_ms):
        watch.add((1000 + i * 50) * MS, i * 0.05)
        assert watch.fault(i * 0.05 + 0.04, (1000 + i * 50 + jitter) * MS) == ""


@pytest.mark.parametrize(
    ("stamps", "now_ms", "fault"),
    [
        ((1000, 1050), 1260, "is stamped 0.21 s ago, at most 0.2 s allowed"),
        ((1000, 1050), 900, "is stamped 0.15 s in the future"),
        ((0, 0), 1050, "carries no stamp"),
        ((1000,) * 6, 1100, "repeats its stamp for 0.25 s"),
        ((1000, 1100, 1050), 1100, "is stamped earlier than the message before"),
    ],
)
def test_stamps_that_are_wrong_are_named(stamps, now_ms, fault):
    watch, now_s = heard(*stamps)
    assert watch.fault(now_s, now_ms * MS).startswith(fault)


def test_an_hour_of_difference_is_named_either_way():
    watch, now_s = heard(1000, 1050)
    assert "3600.00 s ago" in watch.fault(now_s, 1050 * MS + HOUR_NS)
    watch = StampWatch(max_age_s=0.2, max_ahead_s=0.1)
    watch.add(HOUR_NS, 0.0)
    assert "in the future" in watch.fault(0.0, 1 * MS)


def test_a_watch_that_heard_nothing_or_was_cleared_finds_no_fault():
    watch, now_s = heard(1000, 900)
    watch.clear()
    assert watch.fault(now_s, 1000 * MS) == ""


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("joint_position", [9, 0, 0, -2, 0, 2, 0], "joint_position number 1 is 9"),
        ("gripper_qpos", [1e6, 0], "gripper_qpos number 1 is 1e"),
        ("end_effector_position_relative", [500, 0, 400], "number 1 is 500"),
        ("end_effector_rotation_relative", [5, 0, 0, 0], "is no rotation: its quaternion has no"),
        ("end_effector_rotation_relative", [0, 0, 0, 0], "is no rotation"),
        ("end_effector_position_relative", [np.nan, 0, 0], "number 1 is nan"),
    ],
)
def test_a_state_that_cannot_be_is_refused(field, value, says):
    with pytest.raises(ObservationError, match=says):
        StateWatch().check(HOME | {field: np.float32(value)}, at(0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("end_effector_position_relative", [-0.5, 0, 0.4]),
        ("joint_position", [1, 0.2, 0, -2, 0, 2.2, 0.8]),
        ("end_effector_rotation_relative", [0, 1, 0, 0]),
    ],
)
def test_a_jump_is_told_once_and_the_new_state_counts(field, value):
    watch = StateWatch()
    watch.check(HOME, at(0))
    moved = HOME | {field: np.float32(value)}
    with pytest.raises(StateJump, match=f"{field} jumped by .* within 0.05 s"):
        watch.check(moved, at(50))
    watch.check(moved, at(100))


def test_motion_and_both_signs_of_a_rotation_are_no_jump():
    watch = StateWatch()
    for step in range(50):
        state = HOME | {
            "end_effector_position_relative": np.float32([0.5 - 0.1 * step / 2, 0, 0.4]) * 0.5,
            "end_effector_rotation_relative": np.float32([(-1) ** step, 0, 0, 0]),
        }
        watch.check(state, at(step * 50))


def test_a_camera_keeps_its_size_and_sees_something():
    watch = ImageWatch()
    bright = np.full((48, 64, 3), 90, np.uint8)
    assert watch.fault(bright) == ""
    assert watch.fault(np.full((48, 64, 3), 1, np.uint8)) == "is black"
    assert watch.fault(bright[:24]).startswith("changed its size from 48 x 64 to 24 x 64")
    assert watch.fault(bright) == ""
    assert ImageWatch().fault(bright[:1, :1]).startswith("sends 1 x 1 pixels")


def test_a_black_picture_with_an_opaque_alpha_channel_is_black():
    image = np.zeros((48, 64, 4), np.uint8)
    image[..., 3] = 255
    assert ImageWatch().fault(image) == "is black"


def test_a_pose_is_timed_by_its_own_stamps():
    """Joint states come slower than poses: the arm moved, its joints were not heard yet."""
    watch, pose = StateWatch(), "end_effector_position_relative"
    watch.check(HOME, at(0))
    moved = HOME | {pose: HOME[pose] + np.float32([0.1, 0, 0])}
    watch.check(moved, at(0) | {pose: 50 * MS})


def test_an_arm_with_other_joints_has_no_limits_of_franka():
    assert state_limits(("shoulder_pan_joint",)) == {}
    state = {"joint_position": np.float32([4.0] * 6)}
    StateWatch(state_limits(("shoulder_pan_joint",))).check(state, {"joint_position": 0})


def test_two_publishers_are_told_from_one_that_was_started_again():
    watch = PublisherWatch()
    assert not any(watch.are_two(n, 0.05 * n) for n in range(1, 20))
    assert not watch.are_two(1, 1.0), "started again"
    assert not watch.are_two(2, 1.05)
    watch = PublisherWatch()
    numbers = [(n, 0.05 * n) for n in range(100, 160)]
    numbers[20:20] = [(1, 6.0)]
    numbers[45:45] = [(2, 7.2)]
    assert any(watch.are_two(*each) for each in numbers), "even if the second is slow"
    assert not PublisherWatch().are_two(None, 0.0), "a middleware without numbers"
