"""The guard lets nothing through that is out of limits, malformed, stale or stopped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from z1_ros.errors import ConfigError
from z1_ros.runtime.guard import JUST_STARTED, Guard, GuardConfig
from z1_ros.specs import PANDA, PANDA_OMRON

OPEN, CLOSE = -1.0, 1.0


def command(x: float = 0.0, gripper: float = OPEN) -> np.ndarray:
    action = np.zeros(PANDA.action_dim, np.float32)
    action[0], action[6] = x, gripper
    return action


def test_a_good_action_passes_unchanged():
    verdict = Guard(PANDA).filter(command(0.5))
    assert verdict.held == ""
    assert verdict.action.tobytes() == command(0.5).tobytes()


def test_limits_clamp_each_dimension_and_are_counted():
    guard = Guard(PANDA)
    assert guard.filter(command(0.9, 7.0)).action.tolist() == command(0.9, 1.0).tolist()
    assert guard.counts["limited"] == 1
    guard.filter(command(0.9))
    assert guard.counts["limited"] == 1


def test_rate_is_clamped_per_dimension_but_not_for_the_gripper():
    guard = Guard(PANDA)
    guard.filter(command(0.8, OPEN))
    assert guard.filter(command(-1.0, CLOSE)).action.tolist() == pytest.approx(
        command(-0.2, CLOSE).tolist()
    )
    assert guard.counts["rate_limited"] == 1


def test_dimensions_may_come_in_any_order_but_must_be_the_robots():
    guard = Guard(PANDA)
    dims = PANDA.action_dims[::-1]
    assert guard.filter(command(0.5)[::-1], dims).action.tolist() == command(0.5).tolist()
    verdict = guard.filter(command(), ("end_effector_position.q", *PANDA.action_dims[1:]))
    assert "end_effector_position.q" in verdict.held


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.full(7, np.nan), "not a finite"),
        (np.array([np.inf, 0, 0, 0, 0, 0, 0]), "not a finite"),
        (np.zeros(8), r"shape is \(8,\)"),
        (np.zeros((1, 7)), r"shape is \(1, 7\)"),
        (np.array(["1"] * 7), "not a finite"),
    ],
)
def test_a_malformed_action_becomes_a_named_hold_that_keeps_the_grip(bad, says):
    guard = Guard(PANDA)
    guard.filter(command(0.5, CLOSE))
    verdict = guard.filter(bad)
    assert verdict.action.tolist() == command(0, CLOSE).tolist()
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(verdict.held)
    assert guard.counts["refused"] == 1


def test_a_stop_is_latched_named_and_released_by_reset_only():
    guard = Guard(PANDA)
    guard.filter(command(0.5, CLOSE))
    guard.set_estop(True)
    guard.set_estop(False)
    verdict = guard.filter(command(0.5, OPEN))
    assert verdict.held == "stopped: emergency stop pressed"
    assert verdict.action.tolist() == command(0, CLOSE).tolist()
    assert guard.reset() == (True, "released: emergency stop pressed")
    assert guard.filter(command(0.5, OPEN)).held == ""
    assert guard.counts["stopped"] == 1


def test_reset_is_refused_while_the_button_is_pressed():
    guard = Guard(PANDA)
    guard.set_estop(True)
    done, message = guard.reset()
    assert not done
    assert "still pressed" in message
    assert guard.stop_reason


def test_the_first_stop_keeps_its_name():
    guard = Guard(PANDA)
    guard.stop("arm in reflex")
    guard.set_estop(True)
    assert guard.stop_reason == "arm in reflex"


def test_a_silent_policy_is_held_with_the_last_grip_and_counted_once_per_silence():
    guard = Guard(PANDA, GuardConfig(max_age_s=0.1))
    assert guard.check_age(100.0) is None, "nothing was ever commanded"
    guard.filter(command(0.5, CLOSE), now_s=1.0)
    assert guard.check_age(1.09) is None
    verdict = guard.check_age(1.12)
    assert verdict.held == "no action for 0.12 s"
    assert verdict.action.tolist() == command(0, CLOSE).tolist()
    guard.check_age(1.2)
    assert guard.counts["stale"] == 1
    guard.filter(command(0.5), now_s=2.0)
    assert guard.check_age(2.05) is None
    guard.check_age(3.0)
    assert guard.counts["stale"] == 2


def test_a_malformed_action_does_not_count_as_a_sign_of_life():
    guard = Guard(PANDA)
    guard.filter(command(), now_s=1.0)
    guard.filter(np.full(7, np.nan), now_s=2.0)
    assert guard.check_age(2.0).held.startswith("no action for")


def test_settings_that_would_break_the_promise_of_300_ms_are_refused():
    with pytest.raises(ConfigError, match=r"within 0\.3 s"):
        GuardConfig(max_age_s=0.5)
    with pytest.raises(ConfigError, match="max_step_scale"):
        GuardConfig(max_step_scale=0)


ACTIONS = arrays(
    np.float32, PANDA_OMRON.action_dim, elements=st.floats(width=32, allow_nan=True)
) | arrays(np.float64, st.integers(0, 14), elements=st.floats(-3, 3))


@given(st.lists(ACTIONS | st.sampled_from(["stop", "age", "reset"]), max_size=30))
def test_nothing_outside_limits_or_rates_ever_comes_out(inputs):
    """Whatever goes in, in whatever order; and no motion while stopped."""
    guard = Guard(PANDA_OMRON, GuardConfig(max_step_scale=0.5))
    low, high = PANDA_OMRON.action_limits()
    moving = [f.hold is not None for f in PANDA_OMRON.action for _ in f.dims]
    previous = None
    for now_s, given_input in enumerate(inputs):
        if isinstance(given_input, str):
            if given_input == "stop":
                guard.stop("test")
            elif given_input == "reset":
                guard.reset()
                previous = None
            verdict = guard.check_age(now_s) if given_input == "age" else None
        else:
            verdict = guard.filter(given_input, now_s=now_s)
        if verdict is None:
            continue
        assert verdict.action.dtype == np.float32
        assert ((verdict.action >= low) & (verdict.action <= high)).all()
        hold = PANDA_OMRON.hold_action(previous)
        if guard.stop_reason:
            assert verdict.held
        if verdict.held:
            assert verdict.action[moving].tolist() == hold[moving].tolist()
        else:
            step = np.abs(verdict.action - (hold if previous is None else previous))
            assert (step[:6] <= 0.5 + 1e-6).all()
            assert (step[7:11] <= 0.25 + 1e-6).all()
        previous = verdict.action


def test_hearing_the_button_ends_the_first_hold_and_no_other_stop():
    guard = Guard(PANDA)
    guard.stop(JUST_STARTED)
    guard.set_estop(False)
    assert not guard.stop_reason
    guard.stop(JUST_STARTED)
    guard.stop("two publishers")
    guard.set_estop(False)
    assert guard.stop_reason == "two publishers"
    guard.stop(JUST_STARTED)
    assert guard.stop_reason == "two publishers"


@given(gaps_s=st.lists(st.floats(0.0, 0.2), min_size=1, max_size=200))
def test_no_more_actions_are_admitted_than_the_control_rate_allows(gaps_s):
    guard, now_s, admitted = Guard(PANDA), 100.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        admitted += guard.admits(now_s)
    assert admitted <= 2 + 1.1 * PANDA.control_hz * (now_s - 100.0) + 1e-6
    assert guard.counts["too_many"] == len(gaps_s) - admitted


@given(jitter_s=st.lists(st.floats(-0.02, 0.02), min_size=1, max_size=200))
def test_actions_at_the_control_rate_are_all_admitted(jitter_s):
    guard = Guard(PANDA)
    assert all(guard.admits(100.0 + 0.05 * i + late) for i, late in enumerate(jitter_s))
