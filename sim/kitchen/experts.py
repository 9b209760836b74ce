"""Scripted experts: programs that do the tasks from privileged simulator state.

Each expert is a proportional controller towards a target that depends on the current state. Far
from the approach line, the target is in front of the goal; near the line, it is the goal itself (a
funnel). An expert therefore recovers from disturbances. Its only memory is the phase of the task
(for example reach, grasp, pull), which is checked in each step.
"""

from abc import ABC, abstractmethod

import mujoco
import numpy as np

from z1_ros.errors import ConfigError, closest
from z1_ros.sim.kitchen.control import rotation_between, shorten
from z1_ros.sim.kitchen.env import KitchenEnv
from z1_ros.sim.kitchen.panda import FINGER_JOINTS

OPEN, CLOSE = -1.0, 1.0
_TILT = 0.5  # forward tilt of the hand in the ready pose [rad]
_ORIENTATION = np.zeros(4)  # quaternion (wxyz, base frame) of a hand that points down, tilted
mujoco.mju_mat2Quat(
    _ORIENTATION,
    np.array([np.cos(_TILT), 0, np.sin(_TILT), 0, -1, 0, np.sin(_TILT), 0, -np.cos(_TILT)]),
)
_GAIN = 0.22  # share of the remaining error that one control step commands
_TOP_SPEED = 0.32  # longest command, in units of action
_TOP_TURN = 0.35


class Expert(ABC):
    """Base class of scripted experts; call ``act`` once per control step after a reset."""

    def __init__(self, env: KitchenEnv):
        self.env, self._data = env, env.data
        self._phase = "reach"
        self._fingers = [env.model.joint(name).dofadr[0] for name in FINGER_JOINTS]

    @abstractmethod
    def act(self) -> np.ndarray:
        """Return the next action (action_dim,) float32 within -1..1."""

    @property
    def _tip(self) -> np.ndarray:
        """Point between the finger pads in the world frame (3,) [m]."""
        return self._data.site_xpos[self.env.controller.grip]

    @property
    def _width(self) -> float:
        """Distance between the finger pads [m]."""
        first, second = self._data.qpos[self.env.controller.finger_qpos]
        return float(first - second)

    @property
    def _closing_speed(self) -> float:
        """Speed at which the finger pads approach each other [m/s]."""
        first, second = self._data.qvel[self._fingers]
        return float(second - first)

    def _site(self, name: str) -> np.ndarray:
        return self.env.goal.site(self._data, name)

    def _towards(self, target: np.ndarray, grip: float) -> np.ndarray:
        """Return an action towards ``target`` (3,) [m] in the world frame.

        The action also turns the hand to the orientation of the ready pose.
        """
        controller = self.env.controller
        frame = self._data.xmat[controller.link0].reshape(3, 3)
        move = frame.T @ (target - self._tip) * (_GAIN / 0.05)
        _, quat = controller.pose(self._data)
        turn = rotation_between(quat, _ORIENTATION) * (_GAIN / 0.5)
        action = np.zeros(self.env.embodiment.action_dim, np.float32)
        action[:3], action[3:6] = shorten(move, _TOP_SPEED), shorten(turn, _TOP_TURN)
        action[6] = grip
        if len(action) > 7:
            action[-1] = -1
        return action


class _OpenDrawer(Expert):
    """Grasp the handle from the front and pull straight back."""

    def act(self) -> np.ndarray:
        handle = self._site(self.env.goal.landmarks[0]) - (0, 0, 0.008)
        off = self._tip - handle
        self._phase = self._next_phase(off)
        if self._phase == "reach":
            aside = np.hypot(off[1], off[2])
            return self._towards(funnel(handle, (1, 0, 0), aside, 0.02, 0.10), OPEN)
        if self._phase == "grasp":
            return self._towards(handle, CLOSE)
        return self._towards(handle - (0.10, 0, 0), CLOSE)

    def _next_phase(self, off: np.ndarray) -> str:
        if np.linalg.norm(off) > 0.05:
            return "reach"
        if self._phase == "reach":
            near = abs(off[0]) < 0.012 and abs(off[1]) < 0.02 and abs(off[2]) < 0.02
            return "grasp" if near else "reach"
        if self._phase == "grasp" and self._width < 0.030 and self._closing_speed < 0.02:
            return "pull"
        return self._phase


class _TurnOnSinkFaucet(Expert):
    """Push the lever back with closed fingers."""

    def act(self) -> np.ndarray:
        lever = np.add(self._site("faucet_lever"), (0, 0, -0.005))
        off = self._tip - lever
        if off[0] > 0.0:  # behind the lever: move back above it
            rise = np.array([0.0, 0.0, 0.08])
            return self._towards(lever + rise - (0.10 if off[2] > 0.05 else 0.0, 0, 0), CLOSE)
        aside = np.hypot(off[1], off[2])
        if aside > 0.035 or off[0] < -0.06:
            return self._towards(funnel(lever - (0.03, 0, 0), (1, 0, 0), aside, 0.015, 0.08), CLOSE)
        return self._towards(np.add(lever, (0.05, 0, 0)), CLOSE)


class _TurnOnMicrowave(Expert):
    """Press the green button with closed fingers, then move back."""

    def act(self) -> np.ndarray:
        button = self._site("microwave_start")
        if self.env.goal.flags["microwave"]:
            return self._towards(button - (0.22, 0, 0), CLOSE)
        off = self._tip - button
        aside = np.hypot(off[1], off[2])
        front = np.add(button, (0.03, 0, 0))
        return self._towards(funnel(front, (1, 0, 0), aside, 0.012, 0.10), CLOSE)


class _PnPCounterToSink(Expert):
    """Grasp from above, carry over the rim, release above the basin, move up."""

    def __init__(self, env: KitchenEnv):
        super().__init__(env)
        self._body = env.model.body("object0").id
        # Tall objects are grasped near the top, so that the palm does not touch them.
        self._hold = np.array([0.0, 0.0, max(0.0, env.goal.scene.kinds[0].half[2] - 0.028)])
        self._sink_half = env.model.site_size[env.model.site("sink_inside").id]

    def act(self) -> np.ndarray:
        grasp = self._data.xpos[self._body] + self._hold
        sink = self._site("sink_inside")
        off = self._tip - grasp
        aside, gap = np.hypot(off[0], off[1]), float(np.linalg.norm(off))
        self._phase = self._next_phase(sink, grasp, aside, gap)
        if self._phase == "reach":
            return self._towards(funnel(grasp, (0, 0, -1), aside, 0.012, 0.12), OPEN)
        if self._phase == "leave":
            rise = np.add(self._tip, (-0.05, 0, 0.14)) if gap > 0.05 else self._tip
            return self._towards(rise, OPEN)
        if self._width > 0.076 or self._closing_speed > 0.02:
            return self._towards(grasp, CLOSE)
        return self._carry(sink)

    def _next_phase(self, sink: np.ndarray, grasp: np.ndarray, aside: float, gap: float) -> str:
        if self._phase == "reach" and aside < 0.012 and gap < 0.018:
            return "carry"
        if self._phase == "carry":
            if gap > 0.06:
                return "leave" if self._inside(sink, grasp) else "reach"
            off = self._tip - sink
            low = off[2] - self._hold[2] < self._sink_half[2] + 0.08
            if low and np.hypot(off[0], off[1]) < 0.05:
                return "leave"
        if self._phase == "leave" and gap > 0.12 and not self._inside(sink, grasp):
            return "reach"
        return self._phase

    def _inside(self, sink: np.ndarray, grasp: np.ndarray) -> bool:
        return bool(np.all(np.abs(grasp - sink)[:2] < self._sink_half[:2]))

    def _carry(self, sink: np.ndarray) -> np.ndarray:
        """Return an action that lifts the object, moves it over the sink, then lowers it."""
        rim = sink[2] + self._sink_half[2] + self._hold[2]
        aside = np.hypot(*(self._tip - sink)[:2])
        target = np.array([sink[0], sink[1], rim + 0.06 + min(0.07, max(0.0, aside - 0.04))])
        if aside > 0.12:  # move sideways only after the object is above the counter
            share = np.clip((self._tip[2] - rim - 0.045) / 0.05, 0.0, 1.0)
            target[:2] = self._tip[:2] + share * (target - self._tip)[:2]
        return self._towards(target, CLOSE)


EXPERTS: dict[str, type[Expert]] = {
    "OpenDrawer": _OpenDrawer,
    "TurnOnSinkFaucet": _TurnOnSinkFaucet,
    "TurnOnMicrowave": _TurnOnMicrowave,
    "PnPCounterToSink": _PnPCounterToSink,
}
"""Expert of each task."""


def make_expert(env: KitchenEnv) -> Expert:
    """Return an expert for the current episode, directly after ``env.reset``.

    Raises:
        ConfigError: The task has no expert.
    """
    if env.task not in EXPERTS:
        raise ConfigError(f"no expert for task {env.task!r}. {closest(env.task, EXPERTS)}")
    return EXPERTS[env.task](env)


def funnel(
    target: np.ndarray,
    approach: tuple[float, float, float],
    aside: float,
    slack: float,
    back: float,
) -> np.ndarray:
    """Return the next point, so that ``target`` (3,) [m] is reached along unit vector ``approach``.

    The hand is at the distance ``aside`` [m] from the approach line. Within ``slack`` [m] of the
    line, the point is the target itself, else up to ``back`` [m] in front of it.
    """
    retreat = min(back, 2.5 * max(0.0, aside - slack))
    return np.asarray(target) - retreat * np.asarray(approach)
