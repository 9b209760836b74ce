"""What a teacher may see of the kitchen: complete, the same after a restore, never in a picture."""

import numpy as np
import pytest

from z1_ros.sim.env import TruthfulEnv
from z1_ros.sim.kitchen import TASKS, KitchenConfig, KitchenEnv, make_expert
from z1_ros.specs import PANDA, PANDA_OMRON

SMALL = KitchenConfig(image_size=48)


def made(task: str, seed: int = 5, robot=PANDA) -> KitchenEnv:
    env = KitchenEnv(task, robot, SMALL)
    env.reset(seed)
    return env


@pytest.mark.parametrize("robot", [PANDA, PANDA_OMRON], ids=lambda robot: robot.name)
@pytest.mark.parametrize("task", sorted(TASKS))
def test_truth_has_one_shape_in_every_scene_and_is_of_order_one(task, robot):
    sizes = set()
    for seed in range(4):
        env = made(task, seed, robot)
        expert = make_expert(env)
        for _ in range(25):
            env.step(expert.act()[None])
        truth = env.truth()
        assert isinstance(env, TruthfulEnv) and truth.dtype == np.float32
        assert np.isfinite(truth).all() and np.abs(truth).max() < 20
        sizes.add(truth.shape)
        env.close()
    assert len(sizes) == 1


@pytest.mark.parametrize("task", sorted(TASKS))
def test_truth_is_the_same_after_a_restore(task):
    env = made(task)
    expert = make_expert(env)
    for _ in range(12):
        env.step(expert.act()[None])
    data, before = env.snapshot(), env.truth()
    env.step(np.ones((9, 7)))
    assert not np.array_equal(env.truth(), before)
    env.restore(data)
    assert np.array_equal(env.truth(), before)
    other = made(task, 6)
    other.restore(data)
    assert np.array_equal(other.truth(), before)


def test_truth_follows_drawer_object_and_button():
    """Each task's own matter moves some of the numbers while the robot stands still."""
    for task, joint in (
        ("OpenDrawer", None),
        ("TurnOnMicrowave", "microwave_start"),
        ("TurnOnSinkFaucet", "faucet_handle"),
        ("PnPCounterToSink", "object0"),
    ):
        env = made(task)
        before = env.truth()
        address = env.model.joint(joint or env.goal.joint_name).qposadr[0]
        env.data.qpos[address] += 0.03
        env._kinematics()
        assert np.abs(env.truth() - before).max() > 0.05, task


def test_what_a_policy_observes_holds_nothing_of_it():
    env = made("PnPCounterToSink")
    seen = env.read_state()
    assert set(seen.state) == {field.name for field in PANDA.state}
    env.data.qpos[env.model.joint("object0").qposadr[0]] += 0.05
    env._kinematics()
    again = env.read_state()
    assert all(np.array_equal(seen.state[name], again.state[name]) for name in seen.state)
