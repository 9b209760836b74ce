"""Checks whether stamps, robot state and images can be true, before a policy acts on them.

Without ROS and threads. Each check returns a sentence without its subject, e.g. ``repeats its
stamp``; the caller puts the source's name in front. Limits are those of Franka's arms with a
margin (frankarobotics.github.io/docs/control_parameters.html), so a real arm never exceeds them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ObservationError, StateJump


def stamp_fault(stamp_ns: int, now_ns: int, max_age_s: float, max_ahead_s: float) -> str:
    """Return what is wrong with a stamp; empty if it is close to now."""
    if not stamp_ns:
        return "carries no stamp"
    age_s = (now_ns - stamp_ns) * 1e-9
    if age_s < -max_ahead_s:
        return f"is stamped {-age_s:.2f} s in the future; do the clocks of both machines agree?"
    if age_s > max_age_s:
        return f"is stamped {age_s:.2f} s ago, at most {max_age_s} s allowed"
    return ""


class PublisherWatch:
    """Notices two publishers on one topic, by the numbers that each gives to its messages."""

    within_s = 10.0
    """Time within which numbers go back twice if two publishers take turns [s]. A publisher that
    was started again goes back once."""

    def __init__(self) -> None:
        self._last = -1
        self._back_s = -np.inf

    def are_two(self, number: int | None, now_s: float) -> bool:
        """Note a message's number; return whether two publishers take turns.

        Some middleware gives no numbers (None); then nothing is noticed.
        """
        if number is None:
            return False
        back, self._last = number <= self._last, number
        two = back and now_s - self._back_s < self.within_s
        self._back_s = now_s if back else self._back_s
        return two


class StampWatch:
    """Stamps of one topic: each message must be newer than the one before, and close to now."""

    def __init__(self, max_age_s: float = 0.2, max_ahead_s: float = 0.1):
        """Allow stamps from ``max_age_s`` before now until ``max_ahead_s`` after it."""
        self.max_age_s = max_age_s
        """Longest time from a stamp until now [s]."""
        self.max_ahead_s = max_ahead_s
        """Longest time from now until a stamp [s]."""
        self.clear()

    def clear(self) -> None:
        """Forget all messages."""
        self._stamp_ns: int | None = None
        self._advanced_s, self._went_back_s = 0.0, -np.inf

    def add(self, stamp_ns: int, now_s: float) -> None:
        """Note a message that arrived at ``now_s`` on a steady clock."""
        last = self._stamp_ns
        if last is None or stamp_ns > last:
            self._advanced_s = now_s
        elif stamp_ns < last:
            self._went_back_s = now_s
        self._stamp_ns = stamp_ns

    def fault(self, now_s: float, now_ns: int) -> str:
        """Return what is wrong at ``now_s`` on the steady clock, ``now_ns`` on that of stamps."""
        if self._stamp_ns is None:
            return ""
        if fault := stamp_fault(self._stamp_ns, now_ns, self.max_age_s, self.max_ahead_s):
            return fault
        if now_s - self._went_back_s < self.max_age_s:
            return "is stamped earlier than the message before; are there two publishers?"
        if now_s - self._advanced_s > self.max_age_s:
            return f"repeats its stamp for {now_s - self._advanced_s:.2f} s"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateLimit:
    """What values a state field can have, and how fast they can change."""

    low: tuple[float, ...]
    """Lowest value, of each number or of all."""
    high: tuple[float, ...]
    """Highest value, of each number or of all."""
    per_s: float
    """Largest change of a number per second."""
    slack: float
    """Change that is always possible, whatever the stamps say."""


_ANY = float("inf")
STATE_LIMITS = {
    "joint_position": StateLimit(
        low=(-3.0, -1.9, -3.0, -3.2, -3.0, -0.2, -3.2),
        high=(3.0, 1.9, 3.0, 0.1, 3.0, 4.7, 3.2),
        per_s=6.0,
        slack=0.2,
    ),
    "end_effector_position_relative": StateLimit(low=(-1.3,), high=(1.3,), per_s=3.5, slack=0.05),
    "gripper_qpos": StateLimit(low=(-0.06,), high=(0.06,), per_s=1.0, slack=0.03),
    "base_position": StateLimit(low=(-_ANY,), high=(_ANY,), per_s=3.0, slack=0.1),
}
"""State field -> limits [rad, m]; covers the Panda and the FR3."""


def state_limits(joint_names: Sequence[str]) -> Mapping[str, StateLimit]:
    """Return the limits of an arm with these joints; those of Franka's, none of any other."""
    franka = joint_names and joint_names[0].startswith(("panda_", "fr3_"))
    return STATE_LIMITS if franka else {}


_ROTATION = "rotation"
_NORM_SLACK = 0.02
_TURN_PER_S, _TURN_SLACK = 12.0, 0.4


class StateWatch:
    """Compares a robot's state with its limits and with the state before."""

    def __init__(self, limits: Mapping[str, StateLimit] = STATE_LIMITS) -> None:
        self._limits = limits
        self._last: dict[str, tuple[int, np.ndarray]] = {}

    def check(self, state: Mapping[str, np.ndarray], stamps_ns: Mapping[str, int]) -> None:
        """Check the named fields of a state, and how they changed since their stamps before.

        Raises:
            ObservationError: A value is impossible.
            StateJump: A value changed faster than the robot can move; the new value counts from
                now on.
        """
        for name, value in state.items():
            if _ROTATION in name:
                norm = float(np.linalg.norm(value))
                if not abs(norm - 1) <= _NORM_SLACK:
                    raise ObservationError(
                        f"{name} is no rotation: its quaternion has norm {norm:.3g}"
                    )
            elif limit := self._limits.get(name):
                bad = ~((value >= limit.low) & (value <= limit.high))
                if bad.any():
                    at = int(np.argmax(bad))
                    raise ObservationError(
                        f"{name} number {at + 1} is {value[at]:.3g}, which this robot cannot reach"
                    )
        jumps = [jump for name in state if (jump := self._jump(name, state[name], stamps_ns[name]))]
        if jumps:
            raise StateJump(jumps[0])

    def _jump(self, name: str, value: np.ndarray, stamp_ns: int) -> str:
        before, self._last[name] = self._last.get(name), (stamp_ns, value)
        if before is None:
            return ""
        elapsed_s = max(0.0, (stamp_ns - before[0]) * 1e-9)
        if _ROTATION in name:
            cosine = abs(float(np.dot(value, before[1])))
            change, unit = 2 * float(np.arccos(min(1.0, cosine))), "rad"
            allowed = _TURN_PER_S * elapsed_s + _TURN_SLACK
        elif limit := self._limits.get(name):
            change = float(np.abs(value - before[1]).max())
            allowed = limit.per_s * elapsed_s + limit.slack
            unit = "rad" if name == "joint_position" else "m"
        else:
            return ""
        if change <= allowed:
            return ""
        return f"{name} jumped by {change:.2f} {unit} within {elapsed_s:.2f} s"


MIN_IMAGE_PX = 8
_DARK_MEAN, _DARK_MAX = 4.0, 32


class ImageWatch:
    """Images of one camera: the size never changes, and the camera sees something."""

    def __init__(self) -> None:
        self._size: tuple[int, ...] | None = None

    def fault(self, image: np.ndarray) -> str:
        """Return what is wrong with an image (height, width, channels) uint8; empty if nothing."""
        size = image.shape[:2]
        if min(size) < MIN_IMAGE_PX:
            return f"sends {size[0]} x {size[1]} pixels, expected at least {MIN_IMAGE_PX} each"
        self._size = self._size or size
        if size != self._size:
            return (
                f"changed its size from {self._size[0]} x {self._size[1]} to "
                f"{size[0]} x {size[1]}; call ~/reset if that is intended"
            )
        sample = image[:: max(1, size[0] // 32), :: max(1, size[1] // 32), :3]  # without alpha
        if sample.max() <= _DARK_MAX and sample.mean() <= _DARK_MEAN:
            return "is black"
        return ""
