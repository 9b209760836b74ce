"""The chunk queue counts in actions consumed and refuses malformed chunks whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z1_ros.errors import ActionError
from z1_ros.runtime.chunks import ChunkQueue
from z1_ros.types import ActionChunk

DIMS = ("a.x", "a.y")


def chunk(first: int, horizon: int = 6, dims=DIMS) -> ActionChunk:
    """Return a chunk whose action i is (first + i, -(first + i))."""
    numbers = np.arange(first, first + horizon, dtype=np.float32)
    return ActionChunk(actions=np.stack([numbers, -numbers], 1), dims=dims, stamp_ns=first)


def test_actions_come_out_in_order_with_the_stamp_of_their_observation():
    queue = ChunkQueue(DIMS)
    queue.merge(chunk(10, 3), started_at=0)
    popped = [queue.pop() for _ in range(4)]
    assert [p.action[0] for p in popped[:3]] == [10, 11, 12]
    assert {p.stamp_ns for p in popped[:3]} == {10}
    assert popped[3] is None


def test_actions_consumed_while_thinking_are_skipped():
    queue = ChunkQueue(DIMS)
    queue.merge(chunk(0), started_at=0)
    started_at = queue.consumed
    queue.pop(), queue.pop()
    assert queue.merge(chunk(100), started_at) == 2
    assert queue.pop().action[0] == 102


def test_a_robot_that_held_while_thinking_starts_with_the_first_action():
    """However long it took: the queue was empty, nothing was consumed."""
    queue = ChunkQueue(DIMS)
    for _ in range(50):
        assert queue.pop() is None
    assert queue.merge(chunk(100), started_at=0) == 0
    assert queue.pop().action[0] == 100


def test_dimensions_are_matched_by_name():
    queue = ChunkQueue(DIMS)
    queue.merge(chunk(1, dims=("a.y", "a.x")), started_at=0)
    assert queue.pop().action.tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.full((4, 2), np.nan), "not a finite number"),
        (np.array([[0, 0], [0, np.inf]]), "not a finite number"),
        (np.zeros((4, 3)), r"shape is \(4, 3\), expected \(k, 2\)"),
        (np.zeros(2), r"shape is \(2,\)"),
        (np.zeros((0, 2)), "it holds no action"),
    ],
)
def test_a_malformed_chunk_is_dropped_whole_and_counted(bad, says):
    queue = ChunkQueue(DIMS)
    queue.merge(chunk(0), started_at=0)
    with pytest.raises(ActionError, match=f"action chunk dropped: .*{says}"):
        queue.merge(ActionChunk(actions=bad, dims=DIMS, stamp_ns=1), started_at=0)
    assert queue.refused == 1
    assert len(queue) == 6, "what was left of the good chunk goes on"


def test_a_chunk_with_other_dimensions_is_refused_by_name():
    queue = ChunkQueue(DIMS)
    with pytest.raises(ActionError, match=r"a\.z"):
        queue.merge(chunk(0, dims=("a.x", "a.z")), started_at=0)
    assert queue.refused == 1


def test_old_chunks_expire_and_clearing_keeps_the_count():
    queue = ChunkQueue(DIMS)
    queue.merge(chunk(10), started_at=0)
    queue.pop()
    assert not queue.expire(10)
    assert queue.expire(11)
    assert (len(queue), queue.consumed) == (0, 1)
    assert not queue.expire(11), "an empty queue has nothing to expire"


@given(st.lists(st.tuples(st.sampled_from(["pop", "start", "merge"])), max_size=60))
def test_the_robot_never_repeats_or_skips_an_instant(operations):
    """With gapless execution, action i of any chunk belongs to instant start + i, always."""
    queue = ChunkQueue(DIMS)
    started: list[int] = []
    for (operation,) in operations:
        if operation == "start":
            started.append(queue.consumed)
        elif operation == "merge" and started:
            begun = started.pop(0)
            left = len(queue)
            delay = queue.merge(chunk(begun), begun)
            assert delay == min(queue.consumed - begun, 6)
            assert len(queue) == 6 - delay
            assert left >= 0
        elif operation == "pop":
            instant, queued = queue.consumed, queue.pop()
            assert queue.consumed == instant + (queued is not None)
            if queued is not None:
                assert queued.action[0] == instant
