"""What an action does to the arm, the hand and the base."""

import mujoco
import numpy as np
import pytest
from support.kitchen import kitchen

from z1_ros.sim.kitchen import KitchenConfig
from z1_ros.specs import PANDA_OMRON


@pytest.mark.parametrize(
    ("axis", "sign"), [(axis, sign) for axis in range(3) for sign in (-1, 1)], ids=str
)
def test_position_actions_move_the_hand_along_the_base_axes(axis, sign):
    env = kitchen("OpenDrawer", seed=3)
    start = env.read_state().state["end_effector_position_relative"]
    action = np.zeros(7)
    action[axis] = 0.2 * sign  # 1 cm each
    env.step(np.repeat(action[None], 5, 0))
    env.step(np.zeros((10, 7)))
    moved = env.read_state().state["end_effector_position_relative"] - start
    assert moved[axis] == pytest.approx(0.05 * sign, abs=0.004)
    assert np.abs(np.delete(moved, axis)).max() < 0.004


def test_rotation_action_turns_the_hand_about_a_base_axis():
    env = kitchen("OpenDrawer", seed=3)
    before = env.read_state().state
    action = np.array([0, 0, 0, 0, 0, 0.2, 0.0])  # 0.1 rad each about z
    env.step(np.repeat(action[None], 4, 0))
    env.step(np.zeros((10, 7)))
    after = env.read_state().state
    start, end = (s["end_effector_rotation_relative"][[3, 0, 1, 2]] for s in (before, after))
    inverse, between, turn = np.zeros(4), np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, start.astype(float))
    mujoco.mju_mulQuat(between, end.astype(float), inverse)
    mujoco.mju_quat2Vel(turn, between, 1.0)
    assert turn == pytest.approx([0, 0, 0.4], abs=0.03)


def test_gripper_follows_the_sign_and_keeps_still_at_zero():
    env = kitchen("OpenDrawer", seed=3)
    close, keep = np.zeros((4, 7)), np.zeros((8, 7))
    close[:, 6] = 0.01
    env.step(close)
    env.step(keep)
    width = env.read_state().state["gripper_qpos"]
    assert width == pytest.approx([0.024, -0.024], abs=0.002)


def test_goal_does_not_wind_up_against_the_counter():
    env = kitchen("TurnOnSinkFaucet", seed=3, config=KitchenConfig(randomisation=0.0))
    down, up = np.zeros((60, 7)), np.zeros((8, 7))
    down[:, 2], up[:, 2] = -0.5, 0.5
    env.step(down)
    low = env.read_state().state["end_effector_position_relative"][2]
    env.step(up)
    assert env.read_state().state["end_effector_position_relative"][2] > low + 0.06


def test_wild_actions_stay_finite_and_hold_together():
    env = kitchen("PnPCounterToSink", seed=5)
    rng = np.random.default_rng(0)
    for _ in range(120):
        env.step(rng.choice([-1.0, 1.0], (1, 7)))
        assert np.isfinite(env.data.qpos).all() and np.abs(env.data.qvel).max() < 60
    assert sum(w.number for w in env.data.warning) == 0


def test_standing_still_does_not_jitter():
    """Hand and object stay where they are, while the elbow may settle slowly."""
    env = kitchen("PnPCounterToSink", seed=5)
    env.step(np.zeros((20, 7)))
    grip, thing = env.model.site("grip").id, env.model.body("object0").id
    start = np.concatenate([env.data.site_xpos[grip], env.data.xpos[thing]])
    for _ in range(20):
        env.step(np.zeros((2, 7)))
        now = np.concatenate([env.data.site_xpos[grip], env.data.xpos[thing]])
        assert np.abs(now - start).max() < 1e-4
    assert np.abs(env.data.qvel).max() < 0.02


@pytest.mark.parametrize(
    ("axis", "sign"), [(axis, sign) for axis in range(3) for sign in (-1, 1)], ids=str
)
def test_a_hold_at_full_speed_stops_the_arm(axis, sign):
    """Asked to stay, the arm drops what is left of its way, which may be 6 cm."""
    env = kitchen("OpenDrawer", seed=1)
    moving = np.zeros((8, 7))
    moving[:, axis] = sign
    env.step(moving[:7])
    before = env.read_state().state["end_effector_position_relative"]
    env.step(moving[7:])
    places = [env.read_state().state["end_effector_position_relative"]]
    assert np.linalg.norm(places[0] - before) / 0.05 > 0.2, "it was not fast"
    for _ in range(12):
        env.step(np.zeros((1, 7)))
        places.append(env.read_state().state["end_effector_position_relative"])
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) / 0.05
    assert speeds[2:].max() < 0.06, "from 0.1 s after the hold on"
    assert max(np.linalg.norm(place - places[0]) for place in places) < 0.02


def test_mobile_base_drives_only_in_base_mode():
    env = kitchen("OpenDrawer", embodiment=PANDA_OMRON)
    torso = env.model.body("torso").id
    start = env.data.xpos[torso].copy()
    drive = np.zeros((10, 12))
    drive[:, 7:10] = (-1, 0.5, 0)
    env.step(drive)
    assert np.linalg.norm(env.data.xpos[torso] - start) < 1e-3
    drive[:, 11] = 1
    hand = env.read_state().state["end_effector_position_relative"]
    env.step(drive)
    env.step(np.zeros((10, 12)))
    moved = env.model.body("base").pos - env.data.xpos[torso]
    assert 0.15 < np.linalg.norm(moved) < 0.35
    still = env.read_state().state["end_effector_position_relative"]
    assert still == pytest.approx(hand, abs=0.01)
