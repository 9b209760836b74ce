"""Latency statistics that can exclude a slow cold start."""

from collections import deque

import numpy as np


class LatencyStats:
    """Percentiles over the latest durations; the first ``skip`` ones are not counted."""

    def __init__(self, window: int = 2000, skip: int = 0):
        self.count = 0
        """Durations counted so far."""
        self._skip = skip
        self._recent: deque[float] = deque(maxlen=window)

    def add(self, seconds: float) -> None:
        """Add one duration [s]."""
        if self._skip:
            self._skip -= 1
            return
        self.count += 1
        self._recent.append(seconds)

    def percentile_ms(self, q: float) -> float:
        """Return the ``q``-th percentile [ms], nan if nothing was counted."""
        if not self._recent:
            return float("nan")
        return 1e3 * float(np.percentile(self._recent, q))

    def summary(self) -> dict[str, float]:
        """Return ``p50_ms``, ``p99_ms`` and ``n``."""
        p50_ms, p99_ms = self.percentile_ms(50), self.percentile_ms(99)
        return {"p50_ms": p50_ms, "p99_ms": p99_ms, "n": self.count}
