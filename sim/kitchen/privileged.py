"""Privileged state: the input of a privileged teacher in training, never of a policy."""

import mujoco
import numpy as np

from z1_ros.sim.kitchen.control import Controller, joint_addresses
from z1_ros.sim.kitchen.panda import FINGER_JOINTS
from z1_ros.sim.kitchen.tasks import Task

_NEAR_M = 0.03
"""Distance below which the exact position of a point matters [m]."""


class PrivilegedState:
    """Reads the state of robot, task and object in one scene; all numbers are of order one.

    Positions are relative to the gripper, in the frame of the robot's base. Each is given at two
    scales, because a grasp needs an accuracy of about 1 cm.
    """

    def __init__(self, model: mujoco.MjModel, goal: Task):
        """Look up the sites, joints and bodies that matter for ``goal``."""
        self._fingers, self._finger_speed = joint_addresses(model, FINGER_JOINTS)
        self._moved, self._moved_speed = joint_addresses(model, goal.joints)
        self._sites = [model.site(name).id for name in goal.landmarks]
        self._goal = goal
        self._object = model.body("object0").id if goal.scene.kinds else None
        if self._object is not None:
            first = model.joint("object0").dofadr[0]
            self._object_speed = slice(first, first + 6)
            self._half = np.asarray(goal.scene.kinds[0].half) * 20

    def __call__(self, data: mujoco.MjData, controller: Controller) -> np.ndarray:
        """Return the privileged state (n,) float32; kinematics must be up to date."""
        frame = data.xmat[controller.link0].reshape(3, 3).T
        tip = data.site_xpos[controller.grip]
        position = frame @ (tip - data.xpos[controller.link0])
        places = [data.site_xpos[site] for site in self._sites]
        parts: list[np.ndarray | list[float]] = [
            position * 4,
            (frame @ data.site_xmat[controller.grip].reshape(3, 3))[:, :2].ravel() * 2,
            data.qpos[self._fingers] * 25,
            data.qvel[self._finger_speed] * 5,
            (controller.goal_pos - position) * 20,
            [controller.opening * 25],
            data.qpos[self._moved] * 10,
            data.qvel[self._moved_speed] * 5,
            [float(self._goal.flags[name]) for name in sorted(self._goal.flags)],
        ]
        if self._object is not None:
            centre = data.xpos[self._object]
            parts += [
                (frame @ data.xmat[self._object].reshape(3, 3)).ravel(),
                data.qvel[self._object_speed],
                self._half,
            ]
            for place in places:
                parts += _seen_from(frame @ (place - centre))
            places.append(centre)
        for place in places:
            parts += _seen_from(frame @ (place - tip))
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


def _seen_from(offset: np.ndarray) -> list[np.ndarray | list[float]]:
    """Return an offset (3,) [m] at a coarse and a fine scale, and its length at both scales."""
    distance = float(np.sqrt(offset @ offset))
    return [
        offset * 4,
        np.clip(offset * 40, -3, 3),
        [distance * 4, float(np.exp(-distance / _NEAR_M))],
    ]
