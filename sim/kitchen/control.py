"""Controller with RoboCasa's action semantics, on position servos.

robosuite runs an operational-space controller in every physics step. Here, damped least squares
(Nakamura & Hanafusa 1986) computes joint targets from the goal pose once per control step, so that
all physics steps run in one MuJoCo call.
"""

from collections.abc import Iterable

import mujoco
import numpy as np

from z1_ros.sim.kitchen import panda
from z1_ros.sim.kitchen.panda import ARM_JOINTS, BASE_JOINTS, FINGER_JOINTS, FINGER_TRAVEL, GRIP
from z1_ros.specs import Embodiment

CONTROL_STEP_S = 0.05
"""Duration of a control step [s]."""
_POSITION_SCALE, _ROTATION_SCALE = 0.05, 0.5  # [m], [rad] per unit of action
_LEASH = (0.06, 0.4)  # largest distance of the goal pose from the measured pose [m], [rad]
_HOLD_LEASH = (0.015, 0.12)  # the same for a zero action, so that the arm stops soon
_READY = np.asarray(panda.READY)
_DAMPING = 2e-3
_POSTURE_GAIN = 0.05
_GRIP_STEP = 0.1 * FINGER_TRAVEL  # robosuite's PandaGripper: 0.2 of the range -1..1
_BASE_SPEED = np.array([0.5, 0.5, 0.7, 0.1])  # forward, side [m/s], yaw [rad/s], torso [m/s]
_BASE_LEASH = np.array([0.06, 0.06, 0.06, 0.03])


class Controller:
    """Computes servo targets from actions; its state is the goal pose and the finger opening."""

    def __init__(self, model: mujoco.MjModel, embodiment: Embodiment):
        self._model = model
        self._embodiment = embodiment
        self._mobile = any(field.name == "base_motion" for field in embodiment.action)
        self.grip, self.link0 = model.site(GRIP).id, model.body("panda_link0").id
        self.arm_qpos, self._dof = joint_addresses(model, ARM_JOINTS)
        self.finger_qpos, _ = joint_addresses(model, FINGER_JOINTS)
        limits = np.array([model.joint(name).range for name in ARM_JOINTS])
        self._low, self._high = limits[:, 0] + 0.01, limits[:, 1] - 0.01
        self._arm = [model.actuator(name).id for name in ARM_JOINTS]
        self._fingers = [model.actuator(name).id for name in FINGER_JOINTS]
        if self._mobile:
            self._base_qpos, _ = joint_addresses(model, BASE_JOINTS)
            self._base = [model.actuator(name).id for name in BASE_JOINTS]
        self._jacobian = np.zeros((6, model.nv))

    def reset(self, data: mujoco.MjData) -> None:
        """Hold the current pose with open fingers; kinematics must be up to date."""
        self.goal_pos, self.goal_quat = self.pose(data)
        self.opening = FINGER_TRAVEL
        data.ctrl[self._arm] = data.qpos[self.arm_qpos]
        data.ctrl[self._fingers] = (self.opening, -self.opening)
        if self._mobile:
            data.ctrl[self._base] = data.qpos[self._base_qpos]

    @property
    def state(self) -> np.ndarray:
        """State of the controller (8,), which snapshots contain in addition to MuJoCo's state."""
        return np.concatenate([self.goal_pos, self.goal_quat, [self.opening]])

    @state.setter
    def state(self, value: np.ndarray) -> None:
        self.goal_pos, self.goal_quat = value[:3].copy(), value[3:7].copy()
        self.opening = float(value[7])

    def apply(self, data: mujoco.MjData, action: np.ndarray) -> None:
        """Set the servo targets for one control step; kinematics must be up to date.

        ``action`` (action_dim,) is in the embodiment's order, within -1..1.
        """
        field = self._embodiment.action_field
        if self._mobile and field(action, "control_mode")[0] > 0:
            self._move_base(data, field(action, "base_motion"))
            self.goal_pos, self.goal_quat = self.pose(data)
        else:
            self._move_goal(
                data,
                field(action, "end_effector_position") * _POSITION_SCALE,
                field(action, "end_effector_rotation") * _ROTATION_SCALE,
            )
            self._servo_arm(data)
        self.opening -= _GRIP_STEP * float(np.sign(field(action, "gripper_close")[0]))
        self.opening = min(max(self.opening, 0.0), FINGER_TRAVEL)
        data.ctrl[self._fingers] = (self.opening, -self.opening)

    def pose(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """Return the grip's position (3,) [m] and quaternion (4,) wxyz in panda_link0's frame."""
        frame = data.xmat[self.link0].reshape(3, 3)
        pos = frame.T @ (data.site_xpos[self.grip] - data.xpos[self.link0])
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, (frame.T @ data.site_xmat[self.grip].reshape(3, 3)).ravel())
        return pos, quat

    def _move_goal(self, data: mujoco.MjData, shift: np.ndarray, turn: np.ndarray) -> None:
        """Move the goal pose by ``shift`` and ``turn``; limit its distance to the measured pose."""
        longest, widest = _LEASH if shift.any() or turn.any() else _HOLD_LEASH
        pos, quat = self.pose(data)
        self.goal_pos = pos + shorten(self.goal_pos + shift - pos, longest)
        goal = _turned(turn, self.goal_quat)
        self.goal_quat = _turned(shorten(rotation_between(quat, goal), widest), quat)

    def _servo_arm(self, data: mujoco.MjData) -> None:
        pos, quat = self.pose(data)
        frame = data.xmat[self.link0].reshape(3, 3)
        error = np.concatenate(
            [frame @ (self.goal_pos - pos), frame @ rotation_between(quat, self.goal_quat)]
        )
        mujoco.mj_jacSite(self._model, data, self._jacobian[:3], self._jacobian[3:], self.grip)
        q = data.qpos[self.arm_qpos]
        data.ctrl[self._arm] = q + self._joint_step(self._jacobian[:, self._dof], error, q)

    def _joint_step(self, jac: np.ndarray, error: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Return the joint motion (7,) [rad] that reduces a pose error (6,) within joint limits.

        Joints that reach a limit stop there; the other joints compensate for them.
        """
        # In the null space of the task, the arm moves back to the ready posture.
        posture = _POSTURE_GAIN * (_READY - q)
        low, high = self._low - q, self._high - q
        step, free = np.zeros(7), np.ones(7)
        for _ in range(3):
            moving = jac * free
            gram = moving @ moving.T
            gram.flat[::7] += _DAMPING
            rest = error - jac @ (step * (1 - free)) - moving @ posture
            step = np.where(free, posture + moving.T @ np.linalg.solve(gram, rest), step)
            stopped = (step < low) | (step > high)
            step = np.clip(step, low, high)
            if not stopped.any():
                break
            free[stopped] = 0
        return step

    def _move_base(self, data: mujoco.MjData, motion: np.ndarray) -> None:
        now = data.qpos[self._base_qpos]
        step = np.asarray(motion, float) * _BASE_SPEED * CONTROL_STEP_S
        c, s = np.cos(now[2]), np.sin(now[2])
        step[:2] = c * step[0] - s * step[1], s * step[0] + c * step[1]
        target = data.ctrl[self._base] + step
        data.ctrl[self._base] = np.clip(target, now - _BASE_LEASH, now + _BASE_LEASH)


def joint_addresses(model: mujoco.MjModel, names: Iterable[str]) -> tuple[list[int], list[int]]:
    """Return the indices of position and velocity of one-dimensional joints."""
    joints = [model.joint(name) for name in names]
    return [int(j.qposadr[0]) for j in joints], [int(j.dofadr[0]) for j in joints]


def shorten(vector: np.ndarray, longest: float) -> np.ndarray:
    """Return a vector scaled down to the length ``longest`` if it is longer."""
    length = float(np.sqrt(vector @ vector))
    return vector if length <= longest else vector * (longest / length)


def _turned(rotation: np.ndarray, quat: np.ndarray) -> np.ndarray:
    """Return ``quat`` rotated by a rotation vector in the base frame."""
    angle = float(np.sqrt(rotation @ rotation))
    twist, result = np.zeros(4), np.zeros(4)
    axis = rotation / angle if angle > 0 else np.array([0.0, 0.0, 1.0])
    mujoco.mju_axisAngle2Quat(twist, axis, angle)
    mujoco.mju_mulQuat(result, twist, quat)
    mujoco.mju_normalize4(result)
    return result


def rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotation vector in the base frame that rotates ``start`` to ``end``."""
    inverse, twist, vector = np.zeros(4), np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, start)
    mujoco.mju_mulQuat(twist, end, inverse)
    mujoco.mju_quat2Vel(vector, twist, 1.0)
    return vector
