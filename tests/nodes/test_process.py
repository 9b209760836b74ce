"""Long work beside an executor: its result, its error, or the end of patience."""

import threading

import pytest

from z1_ros.nodes.process import in_background


def steps_of(awaited):
    """Step a coroutine as an executor does, again and again; return its result."""
    while True:
        try:
            awaited.send(None)
        except StopIteration as ended:
            return ended.value


def test_the_result_or_the_error_of_the_work_is_the_awaiters():
    assert steps_of(in_background(lambda: 7, 60.0)) == 7
    with pytest.raises(ZeroDivisionError):
        steps_of(in_background(lambda: 1 // 0, 60.0))


def test_work_that_hangs_is_not_waited_for_for_ever():
    go_on = threading.Event()
    with pytest.raises(TimeoutError, match="not done within 0 s"):
        steps_of(in_background(go_on.wait, 0.05))
    go_on.set()
