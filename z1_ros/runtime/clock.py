"""Time for everything that waits or watches: one protocol, two clocks.

Watchdogs use a steady clock. ROS time may stand still (``use_sim_time`` without ``/clock``) or
jump, and a watchdog on it would then never act.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Something that tells how much time has passed."""

    def now_s(self) -> float:
        """Return the time since an arbitrary start [s]; never goes backwards."""
        ...


class WallClock:
    """The machine's steady clock."""

    def now_s(self) -> float:
        """Return ``time.monotonic`` [s]."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until told otherwise, for tests."""

    def __init__(self, now_s: float = 0.0):
        self._now_s = now_s

    def now_s(self) -> float:
        """Return the time it was set to [s]."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; a steady clock cannot go back.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a steady clock cannot go back by {-seconds} s")
        self._now_s += seconds
