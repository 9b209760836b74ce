"""Privileged state: the input of a privileged teacher in training, never of a policy."""

import mujoco
import numpy as np

from z1_ros.sim.kitchen.control import Controller
from z1_ros.sim.kitchen.panda import FINGER_JOINTS, GRIP
from z1_ros.sim.kitchen.tasks import Task

_NEAR_M = 0.03
"""Distance below which the exact position of a point matters [m]."""


class PrivilegedState:
    """Reads the state of robot, task and object in one scene; all numbers are of order one.

    Positions are relative to the gripper, in the frame of the robot's base. Each is given at two
    scales, because a grasp needs an accuracy of about 1 cm.
    """

    def __init__(self, model: mujoco.MjModel, goal: Task):
        """Look up the sites, joints and bodies in the model.

        Args:
            model: Model of the scene.
            goal: Task that defines the relevant sites and joints.
        """
        self._grip, self._link0 = model.site(GRIP).id, model.body("panda_link0").id
        fingers = [model.joint(name) for name in FINGER_JOINTS]
        moved = [model.joint(name) for name in goal.joints]
        self._fingers, self._finger_speed = _addresses(fingers)
        self._moved, self._moved_speed = _addresses(moved)
        self._sites = [model.site(name).id for name in goal.landmarks]
        self._goal = goal
        self._object = model.body("object0").id if goal.scene.kinds else None
        if self._object is not None:
            first = model.joint("object0").dofadr[0]
            self._object_speed = slice(first, first + 6)
            self._half = np.asarray(goal.scene.kinds[0].half) * 20

    def __call__(self, data: mujoco.MjData, controller: Controller) -> np.ndarray:
        """Return the privileged state (n,) float32; kinematics must be up to date."""
        frame = data.xmat[self._link0].reshape(3, 3).T
        tip = data.site_xpos[self._grip]
        position = frame @ (tip - data.xpos[self._link0])
        lead = controller.state[:3] - position
        places = [data.site_xpos[site] for site in self._sites]
        parts: list[np.ndarray | list[float]] = [
            position * 4,
            (frame @ data.site_xmat[self._grip].reshape(3, 3))[:, :2].ravel() * 2,
            data.qpos[self._fingers] * 25,
            data.qvel[self._finger_speed] * 5,
            lead * 20,
            controller.state[7:] * 25,
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
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts]).astype(
            np.float32
        )


def _addresses(joints: list) -> tuple[list[int], list[int]]:
    """Return the indices of position and velocity of one-dimensional joints."""
    return [int(j.qposadr[0]) for j in joints], [int(j.dofadr[0]) for j in joints]


def _seen_from(offset: np.ndarray) -> list[np.ndarray | list[float]]:
    """Return an offset (3,) [m] at a coarse and a fine scale, and its length at both scales."""
    distance = float(np.sqrt(offset @ offset))
    return [
        offset * 4,
        np.clip(offset * 40, -3, 3),
        [distance * 4, float(np.exp(-distance / _NEAR_M))],
    ]
