"""Loose objects: every kind stands on the counter and fits the gripper."""

import mujoco
import numpy as np
import pytest
from support.kitchen import kitchen

from z1_ros.sim.kitchen.objects import KINDS
from z1_ros.sim.kitchen.panda import FINGER_TRAVEL


def test_names_are_unique():
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_fits_between_the_fingers(kind):
    assert min(kind.half[:2]) < FINGER_TRAVEL
    assert 0.02 < kind.mass < 0.5 and kind.colours


def test_an_object_rests_where_it_was_put():
    env = kitchen("PnPCounterToSink", seed=1)
    body = env.model.body("object0").id
    start = env.data.xpos[body].copy()
    mujoco.mj_step(env.model, env.data, 200)
    assert np.abs(env.data.xpos[body] - start).max() < 0.01
