"""A clock that moves only when a test says so."""


class ManualClock:
    """Stands for ``time.monotonic``."""

    def __init__(self, now_s: float = 0.0):
        self._now_s = now_s

    def __call__(self) -> float:
        """Return the time that was set [s]."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Advance the clock by ``seconds``."""
        self._now_s += seconds
