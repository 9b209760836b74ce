"""Steady clocks for waits and watchdogs: one protocol, two implementations.

Watchdogs use a steady clock. ROS time may stop (``use_sim_time`` without ``/clock``) or jump; a
watchdog on ROS time would then never act.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """A clock that measures elapsed time."""

    def now_s(self) -> float:
        """Return the time since an arbitrary start [s]; never goes backwards."""
        ...


class WallClock:
    """The machine's steady clock."""

    def now_s(self) -> float:
        """Return ``time.monotonic`` [s]."""
        return time.monotonic()


class ManualClock:
    """A clock for tests that moves only when ``advance`` is called."""

    def __init__(self, now_s: float = 0.0):
        self._now_s = now_s

    def now_s(self) -> float:
        """Return the time that was set [s]."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Advance the clock by ``seconds``.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a steady clock cannot go back by {-seconds} s")
        self._now_s += seconds
