"""The embedded kitchen: scenes, observations, actions."""

import mujoco
import numpy as np
import pytest
from support.kitchen import kitchen

from z1_ros.errors import ActionError, ConfigError, SeedError
from z1_ros.sim.kitchen import TASKS, KitchenConfig, KitchenEnv
from z1_ros.specs import PANDA, PANDA_OMRON

ALL = sorted(TASKS)


@pytest.mark.parametrize(
    ("task", "robot"), [*((task, PANDA) for task in ALL), ("OpenDrawer", PANDA_OMRON)]
)
def test_observation_holds_exactly_what_the_robot_has(task, robot):
    env = kitchen(task, embodiment=robot)
    seen = env.observe()
    assert set(seen.images) == set(robot.cameras)
    assert all(i.shape == (48, 48, 3) and i.dtype == np.uint8 for i in seen.images.values())
    assert {f.name: (f.size,) for f in robot.state} == {k: v.shape for k, v in seen.state.items()}
    assert all(v.dtype == np.float32 for v in seen.state.values())
    assert all(image.std() > 10 for image in seen.images.values())
    env.close()


def test_state_is_in_the_units_and_frames_of_the_embodiment():
    env = kitchen("OpenDrawer", config=KitchenConfig(randomisation=0.0))
    state = env.read_state().state
    x, y, z = state["end_effector_position_relative"]
    assert 0.3 < x < 0.6 and abs(y) < 1e-3 and 0.2 < z < 0.6
    quat = state["end_effector_rotation_relative"]
    assert np.linalg.norm(quat) == pytest.approx(1, abs=1e-6)
    assert abs(quat[0]) > 0.9  # xyzw: a hand that points down is half a turn about x
    assert state["gripper_qpos"] == pytest.approx([0.04, -0.04])


def test_stamps_count_simulated_time():
    env = kitchen("OpenDrawer")
    assert env.read_state().stamp_ns == 0
    env.step(np.zeros((3, 7)))
    assert env.read_state().stamp_ns == 150_000_000
    assert env.data.time == pytest.approx(0.15)


def test_base_pose_is_that_of_the_arms_mount_in_the_world():
    env = kitchen("OpenDrawer", embodiment=PANDA_OMRON)
    x, y, yaw = env.goal.scene.robot
    state = env.read_state().state
    height = env.model.body("panda_link0").pos[2]
    assert state["base_position"] == pytest.approx([x, y, height], abs=1e-6)
    half_turn = [0, 0, np.sin(yaw / 2), np.cos(yaw / 2)]
    assert state["base_rotation"] == pytest.approx(half_turn, abs=1e-6)
    drive = np.zeros((20, 12))
    drive[:, 7:] = (-1, 0.5, 1, 1, 1)
    env.step(drive)
    state = env.read_state().state
    assert np.linalg.norm(state["base_position"][:2] - (x, y)) > 0.3
    assert state["base_position"][2] > height + 0.05
    frame = np.zeros(9)
    mujoco.mju_quat2Mat(frame, state["base_rotation"][[3, 0, 1, 2]].astype(float))
    hand = frame.reshape(3, 3) @ state["end_effector_position_relative"] + state["base_position"]
    assert hand == pytest.approx(env.data.site_xpos[env.model.site("grip").id], abs=1e-6)


def test_base_rotation_keeps_w_positive_beyond_half_a_turn():
    env = kitchen("OpenDrawer", embodiment=PANDA_OMRON, config=KitchenConfig(randomisation=0.0))
    env.data.qpos[env.model.joint("base_yaw").qposadr[0]] = 4.0
    mujoco.mj_kinematics(env.model, env.data)
    assert env.read_state().state["base_rotation"] == pytest.approx(
        [0, 0, -np.sin(2.0), -np.cos(2.0)], abs=1e-6
    )


def test_an_episode_ends_at_the_horizon_and_consumes_no_more():
    env = kitchen("OpenDrawer", config=KitchenConfig(horizon=5))
    step = env.step(np.zeros((8, 7)))
    assert (step.steps, step.done, step.success, step.consumed) == (5, True, False, 5)
    assert env.step(np.zeros((1, 7))).consumed == 0


def test_unknown_names_say_what_exists():
    with pytest.raises(ConfigError, match="Did you mean 'OpenDrawer'"):
        KitchenEnv("OpenDrawr")
    env = kitchen("OpenDrawer")
    with pytest.raises(ConfigError, match="robot0_agentview_left"):
        env.render("robot0_agentview_lefft", 32, 32)


@pytest.mark.parametrize(
    "actions",
    [np.zeros(7), np.zeros((2, 12)), np.full((1, 7), np.nan)],
    ids=["flat", "12-d", "nan"],
)
def test_malformed_actions_are_refused_and_nothing_moves(actions):
    env = kitchen("OpenDrawer")
    before = env.snapshot()
    with pytest.raises(ActionError):
        env.step(actions)
    assert env.snapshot() == before


def test_use_before_reset_and_after_close_is_an_error():
    env = KitchenEnv("OpenDrawer")
    with pytest.raises(ConfigError, match="reset"):
        env.step(np.zeros((1, 7)))
    env.reset(0)
    env.close()
    with pytest.raises(ConfigError, match="closed"):
        env.read_state()


def test_negative_seed_is_refused():
    with pytest.raises(SeedError):
        KitchenEnv("OpenDrawer").reset(-1)
