"""The arm is Franka's: joints, ranges, and where the hand is for known joint angles."""

import mujoco
import numpy as np
import pytest
from support.kitchen import kitchen

from z1_ros.sim.kitchen.panda import ARM_JOINTS, BASE_JOINTS, FINGER_JOINTS, FINGER_TRAVEL
from z1_ros.specs import PANDA_OMRON

# Franka Control Interface documentation: "Limits for Panda", [rad].
RANGES = (
    (-2.8973, 2.8973),
    (-1.7628, 1.7628),
    (-2.8973, 2.8973),
    (-3.0718, -0.0698),
    (-2.8973, 2.8973),
    (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)


def test_joint_ranges_are_the_published_ones():
    model = kitchen("OpenDrawer").model
    assert [tuple(model.joint(name).range) for name in ARM_JOINTS] == [
        pytest.approx(pair) for pair in RANGES
    ]
    assert [abs(model.joint(name).range).max() for name in FINGER_JOINTS] == [FINGER_TRAVEL] * 2


@pytest.mark.parametrize(
    "angles",
    [(0, 0, 0, -0.0698, 0, 0, 0), (0.3, -0.5, 0.2, -2.6, 0.1, 2.6, 0.8), (1, 1, -1, -1, 1, 1, -1)],
    ids=str,
)
def test_the_last_link_is_where_the_published_kinematics_say(angles):
    """Modified DH parameters (a, d, alpha) of the FCI documentation, multiplied out here."""
    half = np.pi / 2
    table = (
        (0, 0.333, 0),
        (0, 0, -half),
        (0, 0.316, half),
        (0.0825, 0, half),
        (-0.0825, 0.384, -half),
        (0, 0, half),
        (0.088, 0, half),
    )
    pose = np.eye(4)
    for (a, d, alpha), q in zip(table, angles, strict=True):
        ca, sa, cq, sq = np.cos(alpha), np.sin(alpha), np.cos(q), np.sin(q)
        pose = pose @ np.array(
            [
                [cq, -sq, 0, a],
                [sq * ca, cq * ca, -sa, -d * sa],
                [sq * sa, cq * sa, ca, d * ca],
                [0, 0, 0, 1],
            ]
        )
    env = kitchen("OpenDrawer")
    for name, angle in zip(ARM_JOINTS, angles, strict=True):
        env.data.qpos[env.model.joint(name).qposadr[0]] = angle
    mujoco.mj_kinematics(env.model, env.data)
    root, tip = env.model.body("panda_link0").id, env.model.body("panda_link7").id
    frame = env.data.xmat[root].reshape(3, 3)
    seen = frame.T @ (env.data.xpos[tip] - env.data.xpos[root])
    assert seen == pytest.approx(pose[:3, 3], abs=1e-6)
    turned = frame.T @ env.data.xmat[tip].reshape(3, 3)
    assert turned == pytest.approx(pose[:3, :3], abs=1e-6)


def test_only_the_mobile_robot_has_base_joints():
    names = {kitchen("OpenDrawer").model.joint(i).name for i in range(3)}
    assert not names & set(BASE_JOINTS)
    mobile = kitchen("OpenDrawer", embodiment=PANDA_OMRON).model
    assert all(mobile.joint(name).id >= 0 for name in BASE_JOINTS)
