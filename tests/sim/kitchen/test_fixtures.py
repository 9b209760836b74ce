"""Fixtures: what moves, how far, and that it comes back where it should."""

import mujoco
import pytest
from support.kitchen import kitchen

from z1_ros.sim.kitchen.fixtures import COUNTER_Z, DRAWER_TRAVEL


def test_joints_have_the_travel_that_tasks_count_on():
    model = kitchen("OpenDrawer").model
    for side in ("left", "right"):
        assert tuple(model.joint(f"drawer_{side}").range) == (0, DRAWER_TRAVEL)
    assert model.joint("faucet_handle").range[1] > 0.4
    assert model.joint("microwave_start").range[1] == model.joint("microwave_stop").range[1] > 0


def test_a_button_springs_back():
    env = kitchen("TurnOnMicrowave")
    at = env.model.joint("microwave_start").qposadr[0]
    env.data.qpos[at] = env.model.joint("microwave_start").range[1]
    mujoco.mj_step(env.model, env.data, 100)
    assert env.data.qpos[at] < 0.1 * env.model.joint("microwave_start").range[1]


def test_a_drawer_stays_where_it_was_left():
    env = kitchen("OpenDrawer")
    at = env.model.joint("drawer_left").qposadr[0]
    env.data.qpos[at] = 0.1
    mujoco.mj_step(env.model, env.data, 200)
    assert env.data.qpos[at] == pytest.approx(0.1, abs=0.01)


def test_the_sinks_floor_is_below_the_counter():
    env = kitchen("PnPCounterToSink")
    assert env.goal.site(env.data, "sink_inside")[2] < COUNTER_Z
