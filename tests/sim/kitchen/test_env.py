"""The embedded kitchen: scenes, observations, actions."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from z1_ros.errors import ActionError, ConfigError, GraphicsUnavailable, SeedError
from z1_ros.sim.kitchen import TASKS, KitchenConfig, KitchenEnv
from z1_ros.specs import PANDA, PANDA_OMRON

SMALL = KitchenConfig(image_size=48)
ALL = sorted(TASKS)


def kitchen(
    task: str, seed: int = 0, embodiment=PANDA, config: KitchenConfig = SMALL
) -> KitchenEnv:
    env = KitchenEnv(task, embodiment, config)
    env.reset(seed)
    return env


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


def test_wrist_picture_is_upright():
    """The hand fills the picture's lower edge, so that edge is plain."""
    env = kitchen("PnPCounterToSink")
    image = env.render("robot0_eye_in_hand", 96, 96).astype(float)
    assert image[-4:].std(axis=(0, 1)).max() < 3 < image[:48].std(axis=(0, 1)).max()
    env.close()


def test_target_button_is_seen_by_a_base_camera():
    env = kitchen("TurnOnMicrowave", seed=4)
    before = env.render("robot0_agentview_right", 128, 128)
    button = env.model.body("microwave_start").id
    env.model.geom_rgba[env.model.geom_bodyid == button] = (1, 0, 1, 1)
    changed = np.any(env.render("robot0_agentview_right", 128, 128) != before, axis=-1)
    assert changed.sum() >= 4
    env.close()


def test_film_camera_draws_for_people():
    env = kitchen("OpenDrawer")
    assert env.render("film", 120, 160).shape == (120, 160, 3)
    env.close()


def test_seeds_give_other_kitchens_and_equal_seeds_the_same():
    env = KitchenEnv("OpenDrawer", config=SMALL)
    seen = []
    for seed in (0, 1, 2, 0):
        env.reset(seed)
        pose = [env.model.body("base").pos.copy(), env.model.body("drawer_left").pos.copy()]
        seen.append(
            (env.scene_id, env.model.tex_data.tobytes(), env.data.qpos.tobytes(), str(pose))
        )
    assert seen[0] == seen[3]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert all(a != b for a, b in zip(seen[first][:3], seen[second][:3], strict=True))


def test_tasks_do_not_share_scenes():
    faucet, carry = kitchen("TurnOnSinkFaucet", seed=7), kitchen("PnPCounterToSink", seed=7)
    assert faucet.scene_id != carry.scene_id
    assert faucet.model.tex_data.tobytes() != carry.model.tex_data.tobytes()


def test_everything_varies_over_seeds():
    """Sides, object kinds, unit order, base placement and colours all vary."""
    env = KitchenEnv("PnPCounterToSink", config=SMALL)
    told, orders, bases, tints = set(), set(), [], set()
    for seed in range(24):
        env.reset(seed)
        scene = env.goal.scene
        told.add(env.instruction)
        orders.add(tuple(scene.units))
        bases.append(env.model.body("base").pos[1] - scene.units["sink"])
        tints.add(tuple(np.round(scene.look.textures["cabinet"].mean((0, 1)), 0)))
    assert len(told) >= 5 and len(orders) >= 10 and len(tints) >= 10
    assert np.ptp(bases) > 0.15 and np.max(np.abs(bases)) <= 0.12 + 1e-9
    sides = {kitchen("OpenDrawer", seed=s).instruction for s in range(8)}
    assert sides == {"open the left drawer", "open the right drawer"}


def test_no_randomisation_gives_one_kitchen():
    still = KitchenConfig(randomisation=0.0)
    first, second = (kitchen("PnPCounterToSink", seed, config=still) for seed in (1, 2))
    assert first.goal.scene.digest == second.goal.scene.digest


def test_scene_id_depends_on_settings():
    ids = {
        kitchen("OpenDrawer", config=config).scene_id
        for config in (SMALL, KitchenConfig(image_size=64), KitchenConfig(randomisation=0.5))
    }
    assert len(ids) == 3


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


@pytest.mark.parametrize(
    "bad", [{"image_size": 4}, {"randomisation": -1.0}, {"horizon": -1}], ids=str
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError):
        KitchenConfig(**bad)


def test_negative_seed_is_refused():
    with pytest.raises(SeedError):
        KitchenEnv("OpenDrawer").reset(-1)


def test_physics_needs_no_opengl_and_rendering_says_what_is_wrong():
    """A GL library that does not exist: stepping works, rendering raises one clear sentence."""
    code = (
        "import numpy as np\n"
        "from z1_ros.sim.kitchen import KitchenEnv\n"
        "env = KitchenEnv('OpenDrawer'); env.reset(0); env.step(np.zeros((2, 7)))\n"
        "try:\n    env.observe()\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "MUJOCO_GL": "disable"},
        check=True,
    )
    assert run.stdout.startswith(GraphicsUnavailable.__name__)
    assert "MUJOCO_GL is 'disable'" in run.stdout


def test_a_display_that_nobody_serves_does_not_stop_drawing() -> None:
    """Containers often inherit DISPLAY; the images must come all the same."""
    code = (
        "from z1_ros.sim.kitchen import KitchenEnv\n"
        "env = KitchenEnv('OpenDrawer')\nenv.reset(0)\nenv.observe()\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"} | {"DISPLAY": ":77"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=env)
