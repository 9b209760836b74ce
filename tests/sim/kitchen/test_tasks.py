"""The kitchen's tasks: what counts as success."""

import mujoco
import numpy as np
from support.kitchen import kitchen

from z1_ros.sim.kitchen import TASKS, KitchenEnv

ALL = sorted(TASKS)


def set_joint(env: KitchenEnv, name: str, value: float) -> None:
    env.data.qpos[env.model.joint(name).qposadr[0]] = value
    mujoco.mj_kinematics(env.model, env.data)


def succeeds(env: KitchenEnv) -> bool:
    env.goal.update(env.data)
    return bool(env.goal.success(env.data))


def test_drawer_counts_as_open_from_95_percent():
    env = kitchen("OpenDrawer")
    other = {"left": "right", "right": "left"}[env.goal.scene.side]
    set_joint(env, f"drawer_{other}", 0.26)
    set_joint(env, env.goal.joint_name, 0.94 * 0.26)
    assert not succeeds(env)
    set_joint(env, env.goal.joint_name, 0.96 * 0.26)
    assert succeeds(env)


def test_faucet_counts_as_on_above_0_4_rad():
    env = kitchen("TurnOnSinkFaucet")
    set_joint(env, "faucet_handle", 0.39)
    assert not succeeds(env)
    set_joint(env, "faucet_handle", 0.41)
    assert succeeds(env)


def test_microwave_must_be_on_and_the_hand_away():
    env = kitchen("TurnOnMicrowave")
    assert not succeeds(env)
    set_joint(env, "microwave_start", 0.008)
    assert succeeds(env)  # the hand starts far away
    set_joint(env, "microwave_start", 0.0)
    assert succeeds(env)
    env.data.site_xpos[env.model.site("grip").id] = env.goal.site(env.data, "microwave_start")
    assert not succeeds(env)
    set_joint(env, "microwave_start", 0.0)
    set_joint(env, "microwave_stop", 0.008)
    assert not succeeds(env)


def test_object_must_be_in_the_sink_and_the_hand_away():
    env = kitchen("PnPCounterToSink")
    assert not succeeds(env)
    sink = env.goal.site(env.data, "sink_inside").copy()
    at = env.model.joint("object0").qposadr[0]
    env.data.qpos[at : at + 3] = sink
    mujoco.mj_kinematics(env.model, env.data)
    env.data.site_xpos[env.model.site("grip").id] = np.add(sink, (0, 0, 0.24))
    assert not succeeds(env)
    env.data.site_xpos[env.model.site("grip").id] = np.add(sink, (0, 0, 0.26))
    assert succeeds(env)


def test_each_task_names_what_it_is_about():
    for task in ALL:
        env = kitchen(task)
        for site in env.goal.landmarks:
            assert env.model.site(site).id >= 0
        for joint in env.goal.joints:
            assert env.model.joint(joint).qposadr.size == 1
