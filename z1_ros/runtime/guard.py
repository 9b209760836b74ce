"""Safety rules between a policy and a robot, without ROS, clock or thread.

Every action passes ``filter``. A stop is latched and has a name. An action that breaks a rule is
limited or replaced by a hold. Zeros are never the default action: under position control they would
drive the arm to its zero pose. The embodiment therefore defines the hold action of each field.
"""

from collections import Counter
from copy import copy
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ActionError, ConfigError
from z1_ros.specs import Embodiment, ordered_actions


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """Settings of the guard."""

    max_age_s: float = 0.15
    """Time without an action after which the guard holds [s].

    The guard's timer and a 20 Hz robot add up to one period each. So the robot holds within 0.25 s
    of the last action of a policy that hangs or is killed.
    """
    max_step_scale: float = 1.0
    """Factor on every rate limit of the embodiment; a value below 1 allows slower changes."""
    max_lag_s: float = 4.0
    """Longest time from the observation that caused an action until the action arrives [s], by the
    action's stamp; older actions are refused. A slow policy needs more."""
    max_ahead_s: float = 0.1
    """How far an action's stamp may lie in the future [s], because two machines' clocks differ."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0 < self.max_age_s <= 0.2:
            raise ConfigError(
                f"max_age_s is {self.max_age_s} s, expected more than 0 and at most 0.2 s: "
                "the robot must hold within 0.3 s of a policy's last action"
            )
        if not 0 < self.max_step_scale <= 1:
            raise ConfigError(
                f"max_step_scale is {self.max_step_scale}, expected more than 0 and at most 1"
            )
        for name in ("max_lag_s", "max_ahead_s"):
            if not 0 < getattr(self, name) <= 600:
                raise ConfigError(f"{name} is {getattr(self, name)} s, expected up to 600 s")


JUST_STARTED = "the guard has just started; call ~/reset, or publish the e-stop's state"
_RATE_SLACK = 1.1
"""Actions per control period on average, a little more than one: clocks differ."""
_BURST = 2.0
"""Actions that may arrive at once, because messages are delayed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Result of the guard's rules for one action."""

    action: np.ndarray
    """(action_dim,) float32 in the embodiment's order; always within its limits."""
    held: str = ""
    """Reason for a hold instead of the given action; empty if the action passed."""


class Guard:
    """Limits actions and their rates, holds on malformed or stale actions, latches stops."""

    def __init__(self, embodiment: Embodiment, config: GuardConfig | None = None):
        self.embodiment = embodiment
        self.config = config or GuardConfig()
        self.counts: Counter[str] = Counter()
        """How often each rule acted: ``passed``, ``limited``, ``rate_limited``, ``refused``,
        ``stopped`` (actions replaced during a stop), ``stale`` (times that no action arrived),
        ``too_many`` (actions dropped because they came faster than the control rate)."""
        self._low, self._high = embodiment.action_limits()
        scale = self.config.max_step_scale
        self._max_step = np.asarray(
            [
                np.inf if field.max_step is None else field.max_step * scale
                for field in embodiment.action
                for _ in field.dims
            ],
            np.float32,
        )
        self._last: np.ndarray | None = None
        self._last_s: float | None = None
        self._estop = False
        self._stop = ""
        self._stale = False
        self._budget, self._budget_s = _BURST, 0.0

    def twin(self) -> "Guard":
        """Return a copy of the guard; testing actions on it does not change this guard."""
        twin = copy(self)
        twin.counts = self.counts.copy()
        return twin

    @property
    def stop_reason(self) -> str:
        """Name of the latched stop; empty if there is none."""
        return self._stop

    @property
    def estop(self) -> bool:
        """Whether the emergency stop is pressed now."""
        return self._estop

    @property
    def commanded(self) -> bool:
        """Whether an action has arrived since the last reset."""
        return self._last is not None

    def filter(
        self, action: np.ndarray, dims: tuple[str, ...] | None = None, now_s: float = 0.0
    ) -> Verdict:
        """Return the action that the robot may execute instead of ``action`` (action_dim,).

        ``dims`` names the dimensions in any order; None means the embodiment's order. ``now_s`` is
        the time of arrival on a steady clock.
        """
        try:
            wanted = ordered_actions(action, self.embodiment.action_dims, dims)
        except ActionError as error:
            return self.refuse(str(error))
        self._last_s = now_s
        self._stale = False
        if self._stop:
            self.counts["stopped"] += 1
            return self._hold(f"stopped: {self._stop}")
        wanted = wanted.astype(np.float32)
        limited = np.clip(wanted, self._low, self._high)
        self.counts["limited"] += int((limited != wanted).any())
        before = self.hold() if self._last is None else self._last
        smooth = np.clip(limited, before - self._max_step, before + self._max_step)
        smooth = np.clip(smooth, self._low, self._high)
        self.counts["rate_limited"] += int((smooth != limited).any())
        self.counts["passed"] += 1
        self._last = smooth
        return Verdict(action=smooth.copy())

    def check(self, action: np.ndarray, dims: tuple[str, ...] | None = None) -> None:
        """Raise ActionError if ``filter`` would refuse the action."""
        ordered_actions(action, self.embodiment.action_dims, dims)

    def admits(self, now_s: float) -> bool:
        """Return whether an action that arrives at ``now_s`` fits into the control rate.

        Rate limits hold for each action. Two actions per control period would therefore be twice
        as fast as the limits allow; actions that do not fit have to be dropped.
        """
        earned = (now_s - self._budget_s) * self.embodiment.control_hz * _RATE_SLACK
        self._budget, self._budget_s = min(_BURST, self._budget + earned), now_s
        if self._budget < 1:
            self.counts["too_many"] += 1
            return False
        self._budget -= 1
        return True

    def apply(self, action: np.ndarray) -> np.ndarray:
        """Return ``filter(action).action`` (action_dim,), for loops without a clock."""
        return self.filter(action).action

    def refuse(self, why: str) -> Verdict:
        """Count an action message that cannot be parsed, and return a hold."""
        self.counts["refused"] += 1
        return self._hold(f"action refused: {why}")

    def check_age(self, now_s: float) -> Verdict | None:
        """Return a hold if the latest action is too old or a stop is latched, else None.

        Before the first action, no action can be too old. A latched stop is a hold at any time.
        """
        if self._last_s is None:
            return self._hold(f"stopped: {self._stop}") if self._stop else None
        if now_s - self._last_s > self.config.max_age_s:
            if not self._stale:
                self.counts["stale"] += 1
            self._stale = True
            return self._hold(f"no action for {now_s - self._last_s:.2f} s")
        return self._hold(f"stopped: {self._stop}") if self._stop else None

    def stop(self, reason: str) -> None:
        """Latch a stop; the first reason is kept until ``reset``.

        ``JUST_STARTED`` gives way to any other, because hearing the button would end it.
        """
        if self._stop in ("", JUST_STARTED):
            self._stop = reason

    def set_estop(self, pressed: bool) -> None:
        """Set the emergency stop button's state; pressing latches a stop, releasing keeps it.

        A button that is heard and not pressed ends the stop ``JUST_STARTED``.
        """
        self._estop = pressed
        if pressed:
            self.stop("emergency stop pressed")
        elif self._stop == JUST_STARTED:
            self._stop = ""

    def reset(self) -> tuple[bool, str]:
        """Release a latched stop and forget the last command; return (success, message).

        The reset is refused while the emergency stop is pressed.
        """
        if self._estop:
            return False, "emergency stop is still pressed; release it first"
        released, self._stop = self._stop, ""
        self.new_episode()
        return True, f"released: {released}" if released else "no stop was latched"

    def new_episode(self) -> None:
        """Forget the last command; a latched stop stays."""
        self._last = None
        self._last_s = None
        self._stale = False

    def hold(self) -> np.ndarray:
        """Return the action (action_dim,) that holds the robot in its present position."""
        return np.clip(self.embodiment.hold_action(self._last), self._low, self._high)

    def _hold(self, reason: str) -> Verdict:
        self._last = self.hold()
        return Verdict(action=self._last.copy(), held=reason)
