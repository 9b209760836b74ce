"""What a teacher may see of the kitchen: complete, restored exactly, nothing of it for policies."""

import numpy as np
import pytest
from support.kitchen import kitchen

from z1_ros.sim.env import PrivilegedEnv
from z1_ros.sim.kitchen import TASKS, make_expert
from z1_ros.specs import PANDA, PANDA_OMRON


@pytest.mark.parametrize("robot", [PANDA, PANDA_OMRON], ids=lambda robot: robot.name)
@pytest.mark.parametrize("task", sorted(TASKS))
def test_privileged_state_has_one_shape_in_every_scene_and_is_of_order_one(task, robot):
    sizes = set()
    for seed in range(4):
        env = kitchen(task, seed, robot)
        expert = make_expert(env)
        for _ in range(25):
            env.step(expert.act()[None])
        privileged_state = env.privileged_state()
        assert isinstance(env, PrivilegedEnv) and privileged_state.dtype == np.float32
        assert np.isfinite(privileged_state).all() and np.abs(privileged_state).max() < 20
        sizes.add(privileged_state.shape)
        env.close()
    assert len(sizes) == 1


@pytest.mark.parametrize("task", sorted(TASKS))
def test_privileged_state_is_the_same_after_a_restore(task):
    env = kitchen(task, 5)
    expert = make_expert(env)
    for _ in range(12):
        env.step(expert.act()[None])
    data, before = env.snapshot(), env.privileged_state()
    env.step(np.ones((9, 7)))
    assert not np.array_equal(env.privileged_state(), before)
    env.restore(data)
    assert np.array_equal(env.privileged_state(), before)
    other = kitchen(task, 6)
    other.restore(data)
    assert np.array_equal(other.privileged_state(), before)


def test_privileged_state_follows_drawer_object_and_button():
    """Each task's own matter moves some of the numbers while the robot stands still."""
    for task, joint in (
        ("OpenDrawer", None),
        ("TurnOnMicrowave", "microwave_start"),
        ("TurnOnSinkFaucet", "faucet_handle"),
        ("PnPCounterToSink", "object0"),
    ):
        env = kitchen(task, 5)
        before = env.privileged_state()
        address = env.model.joint(joint or env.goal.joint_name).qposadr[0]
        env.data.qpos[address] += 0.03
        env._kinematics()
        assert np.abs(env.privileged_state() - before).max() > 0.05, task


def test_what_a_policy_observes_holds_nothing_of_it():
    env = kitchen("PnPCounterToSink", 5)
    seen = env.read_state()
    assert set(seen.state) == {field.name for field in PANDA.state}
    env.data.qpos[env.model.joint("object0").qposadr[0]] += 0.05
    env._kinematics()
    again = env.read_state()
    assert all(np.array_equal(seen.state[name], again.state[name]) for name in seen.state)
