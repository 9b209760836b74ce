"""Latency statistics that a cold start does not spoil."""

import numpy as np
import pytest

from z1_ros.runtime.latency import LatencyStats


def test_latency_percentiles_ignore_the_skipped_and_honour_the_window():
    stats = LatencyStats(window=3, skip=1)
    assert np.isnan(stats.summary()["p50_ms"])
    for seconds in (9.0, 5.0, 0.01, 0.02, 0.03):
        stats.add(seconds)
    assert stats.count == 4
    assert stats.percentile_ms(50) == pytest.approx(20)
    assert stats.percentile_ms(99) < 31
