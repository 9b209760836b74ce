"""Scripted experts: they see the simulator's state and show a policy what to do.

Each expert is a proportional controller towards a target that depends on the present state:
off the approach line the target lies in front of the goal, on the line it moves in (a funnel).
So the answer to a disturbance is the same as in an undisturbed episode, and the little memory
there is (has the grasp closed, has the object been released) mends itself.
"""

import mujoco
import numpy as np

from z1_ros.errors import ConfigError, closest
from z1_ros.sim.kitchen.control import relative_pose, rotation_between
from z1_ros.sim.kitchen.env import KitchenEnv
from z1_ros.sim.kitchen.panda import BASE_HEIGHT, FINGER_JOINTS, GRIP

OPEN, CLOSE = -1.0, 1.0
_TILT = 0.5  # the ready pose's forward tilt [rad]
_GAIN = 0.25  # share of the remaining error that one control step commands
_TOP_SPEED = 0.55  # longest command, in units of action
_TOP_TURN = 0.35


class Expert:
    """Gives the action for the present instant; call once per control step after a reset."""

    tilt, roll = _TILT, 0.0

    def __init__(self, env: KitchenEnv):
        self.env = env
        self._model, self._data = env.model, env.data
        self._grip = env.model.site(GRIP).id
        self._link0 = env.model.body("panda_link0").id
        self._orientation = _hand_orientation(self.tilt, self.roll)

    def act(self) -> np.ndarray:
        """Return the next action (action_dim,) float32 within -1..1."""
        raise NotImplementedError

    @property
    def _tip(self) -> np.ndarray:
        """Place between the finger pads (3,) [m], world."""
        return self._data.site_xpos[self._grip]

    @property
    def _width(self) -> float:
        """Distance between the finger pads [m]."""
        first, second = (self._model.joint(name).qposadr[0] for name in FINGER_JOINTS)
        return float(self._data.qpos[first] - self._data.qpos[second])

    def _site(self, name: str) -> np.ndarray:
        return self.env.goal.site(self._data, name)

    def _towards(
        self, target: np.ndarray, grip: float, top_speed: float = _TOP_SPEED
    ) -> np.ndarray:
        """Return an action towards ``target`` (3,) [m], world, with the expert's orientation."""
        frame = self._data.xmat[self._link0].reshape(3, 3)
        move = frame.T @ (target - self._tip) * (_GAIN / 0.05)
        _, quat = relative_pose(self._data, self._grip, self._link0)
        turn = rotation_between(quat, self._orientation) * (_GAIN / 0.5)
        action = np.zeros(self.env.embodiment.action_dim, np.float32)
        action[:3], action[3:6] = _limited(move, top_speed), _limited(turn, _TOP_TURN)
        action[6] = grip
        if len(action) > 7:
            action[-1] = -1
        return action

    def _misturn(self) -> float:
        """Angle between the hand and the expert's orientation [rad]."""
        _, quat = relative_pose(self._data, self._grip, self._link0)
        return float(np.linalg.norm(rotation_between(quat, self._orientation)))


class OpenDrawerExpert(Expert):
    """Grasp the bar from the front, pull straight back."""

    tilt, roll = 0.9, -np.pi / 2

    def __init__(self, env: KitchenEnv):
        super().__init__(env)
        self._holding = False

    def act(self) -> np.ndarray:
        """Return the next action."""
        handle = self._site(f"{self.env.goal.joint_name}_handle")
        off = self._tip - handle
        near = abs(off[0]) < 0.02 and abs(off[2]) < 0.02 and abs(off[1]) < 0.05
        self._holding = near if not self._holding else bool(np.linalg.norm(off) < 0.05)
        if not self._holding:
            aside = np.hypot(off[1], off[2]) + 0.1 * self._misturn()
            return self._towards(funnel(handle + (0.006, 0, 0), (1, 0, 0), aside, 0.02, 0.12), OPEN)
        if self._width > 0.035:
            return self._towards(handle + (0.006, 0, 0), CLOSE)
        return self._towards(handle - (0.12, 0, 0), CLOSE, top_speed=0.4)


class TurnOnSinkFaucetExpert(Expert):
    """Push the lever back with closed fingers."""

    def act(self) -> np.ndarray:
        """Return the next action."""
        lever = self._site("faucet_lever") + (0, 0, -0.005)
        off = self._tip - lever
        if off[0] > 0.0:  # beyond the lever: come back over it
            rise = np.array([0.0, 0.0, 0.08])
            return self._towards(lever + rise - (0.10 if off[2] > 0.05 else 0.0, 0, 0), CLOSE)
        aside = np.hypot(off[1], off[2])
        if aside > 0.035 or off[0] < -0.06:
            return self._towards(funnel(lever - (0.03, 0, 0), (1, 0, 0), aside, 0.015, 0.08), CLOSE)
        return self._towards(lever + (0.05, 0, 0), CLOSE, top_speed=0.4)


class TurnOnMicrowaveExpert(Expert):
    """Press the green button with closed fingers, then draw back."""

    def act(self) -> np.ndarray:
        """Return the next action."""
        button = self._site("microwave_start")
        if self.env.goal.flags["microwave"]:
            return self._towards(button - (0.22, 0, 0), CLOSE)
        off = self._tip - button
        aside = np.hypot(off[1], off[2])
        return self._towards(funnel(button + (0.03, 0, 0), (1, 0, 0), aside, 0.012, 0.10), CLOSE)


class PnPCounterToSinkExpert(Expert):
    """Grasp from above, carry over the rim, let go above the basin, rise."""

    def __init__(self, env: KitchenEnv):
        super().__init__(env)
        self._body = env.model.body("object0").id
        self._holding = False

    def act(self) -> np.ndarray:
        """Return the next action."""
        thing = self._data.xpos[self._body]
        sink = self._site("sink_inside")
        half = self._model.site_size[self._model.site("sink_inside").id]
        rim = sink[2] + half[2]
        inside = np.all(np.abs(thing - sink)[:2] < half[:2] - 0.02)
        off = self._tip - thing
        aside = np.hypot(off[0], off[1])
        near = aside < 0.012 and abs(off[2]) < 0.015
        self._holding = near if not self._holding else bool(np.linalg.norm(off) < 0.06)
        if inside and (not self._holding or self._over(sink, rim)):
            self._holding = False
            return self._towards(self._tip + (-0.04, 0, 0.12), OPEN)
        if not self._holding:
            return self._towards(funnel(thing, (0, 0, -1), aside, 0.012, 0.12), OPEN)
        if self._width > 0.068:
            return self._towards(thing, CLOSE)
        return self._carry(sink, rim, thing)

    def _over(self, sink: np.ndarray, rim: float) -> bool:
        """Whether the hand is where it may let go."""
        off = self._tip - sink
        return bool(np.hypot(off[0], off[1]) < 0.06 and self._tip[2] < rim + 0.09)

    def _carry(self, sink: np.ndarray, rim: float, thing: np.ndarray) -> np.ndarray:
        """Lift, then move over the sink, then lower: again a funnel."""
        aside = np.hypot(*(self._tip - sink)[:2])
        high = rim + 0.06 + min(0.09, 1.5 * max(0.0, aside - 0.04))
        target = np.array([sink[0], sink[1], high])
        low = max(0.0, rim + 0.09 - self._tip[2])  # not sideways before it is off the counter
        if aside > 0.12 and low > 0:
            target[:2] = self._tip[:2] + (target - self._tip)[:2] * max(0.0, 1 - low / 0.06)
        return self._towards(target, CLOSE)


EXPERTS: dict[str, type[Expert]] = {
    "OpenDrawer": OpenDrawerExpert,
    "TurnOnSinkFaucet": TurnOnSinkFaucetExpert,
    "TurnOnMicrowave": TurnOnMicrowaveExpert,
    "PnPCounterToSink": PnPCounterToSinkExpert,
}
"""Expert of each task."""


def make_expert(env: KitchenEnv) -> Expert:
    """Return an expert for the episode that ``env.reset`` has just begun.

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
    """Return where to go now so as to reach ``target`` along ``approach``.

    Args:
        target: Place to reach (3,) [m].
        approach: Unit vector of the last stretch.
        aside: Present distance from the approach line [m].
        slack: Distance from the line within which the target itself is aimed at [m].
        back: Longest retreat from the target [m].
    """
    retreat = min(back, 2.5 * max(0.0, aside - slack))
    return np.asarray(target) - retreat * np.asarray(approach)


def _limited(vector: np.ndarray, longest: float) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector if length <= longest else vector * (longest / length)


def _hand_orientation(tilt: float, roll: float) -> np.ndarray:
    """Return the quaternion (wxyz, base frame) of a hand that points down, tilted forward."""
    c, s = np.cos(tilt), np.sin(tilt)
    down = np.array([[c, 0, s], [0, -1, 0], [s, 0, -c]])
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, (down @ turn).ravel())
    return quat
