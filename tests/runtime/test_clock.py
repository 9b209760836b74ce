"""Clocks."""

import pytest

from z1_ros.runtime.clock import ManualClock, WallClock


def test_wall_clock_never_goes_backwards():
    clock = WallClock()
    readings = [clock.now_s() for _ in range(100)]
    assert readings == sorted(readings)


def test_manual_clock_moves_only_when_told():
    clock = ManualClock(5.0)
    assert clock.now_s() == clock.now_s() == 5.0
    clock.advance(0.25)
    assert clock.now_s() == 5.25
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-0.1)
