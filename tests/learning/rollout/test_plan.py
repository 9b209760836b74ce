"""Group plans, masks and rows against tables worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z1_ros.errors import ConfigError
from z1_ros.learning.rollout.plan import (
    Segment,
    branch_points,
    plan_group,
    samples_of,
    trainable,
)


def table(plan):
    return [(s.parent, s.start, s.end, s.first, s.last) for s in plan.segments]


def rows(samples):
    parts = (samples.segment, samples.chunk, samples.advantage)
    return [tuple(row) for row in zip(*(part.tolist() for part in parts), strict=True)]


def test_without_sharing_every_rollout_is_a_whole_episode():
    plan = plan_group(3, "none", 5)
    assert table(plan) == [(-1, 0, None, 0, 1), (-1, 0, None, 1, 2), (-1, 0, None, 2, 3)]
    assert plan.masked == 0


@pytest.mark.parametrize("sharing", ["prefix", "tree"])
def test_without_shared_chunks_nothing_is_shared(sharing):
    assert plan_group(4, sharing, 0) == plan_group(4, "none", 0)


def test_shared_chunks_are_run_once_and_masked():
    plan = plan_group(3, "prefix", 5)
    assert table(plan) == [
        (-1, 0, 5, 0, 3),
        (0, 5, None, 0, 1),
        (0, 5, None, 1, 2),
        (0, 5, None, 2, 3),
    ]
    assert plan.masked == 5
    assert trainable(plan, [7, 6, 9]).sum(1).tolist() == [2, 1, 4]


@pytest.mark.parametrize(
    ("size", "shared_chunks", "points"),
    [
        (4, 15, [7, 15]),
        (8, 15, [3, 7, 15]),
        (8, 1, [0, 0, 1]),
        (2, 15, [15]),
        (16, 15, [1, 3, 7, 15]),
    ],
)
def test_branch_points_halve_towards_the_start(size, shared_chunks, points):
    assert branch_points(size, shared_chunks) == points


def test_a_tree_of_four():
    plan = plan_group(4, "tree", 15)
    assert table(plan) == [
        (-1, 0, 7, 0, 4),
        (0, 7, 15, 0, 2),
        (0, 7, 15, 2, 4),
        (1, 15, None, 0, 1),
        (1, 15, None, 1, 2),
        (2, 15, None, 2, 3),
        (2, 15, None, 3, 4),
    ]
    assert plan.masked == 7
    assert plan.path(2) == [0, 2, 5]
    mask = trainable(plan, [20, 18, 15, 30])
    assert mask[:, :7].sum() == 0 and mask.sum(1).tolist() == [13, 11, 8, 23]


def test_a_tree_of_eight_masks_only_what_all_share():
    plan = plan_group(8, "tree", 15)
    assert plan.masked == 3
    assert [(s.start, s.end, s.size) for s in plan.segments] == (
        [(0, 3, 8)] + [(3, 7, 4)] * 2 + [(7, 15, 2)] * 4 + [(15, None, 1)] * 8
    )


def test_coinciding_branch_points_are_one_wider_split():
    plan = plan_group(8, "tree", 1)  # 0, 0, 1
    assert table(plan)[:4] == [
        (-1, 0, 1, 0, 2),
        (-1, 0, 1, 2, 4),
        (-1, 0, 1, 4, 6),
        (-1, 0, 1, 6, 8),
    ]
    assert [(s.start, s.end, s.size) for s in plan.segments[4:]] == [(1, None, 1)] * 8
    assert plan.masked == 0
    wide = plan_group(8, "tree", 3)  # 0, 1, 3
    assert [(s.start, s.end, s.size) for s in wide.segments] == (
        [(0, 1, 4)] * 2 + [(1, 3, 2)] * 4 + [(3, None, 1)] * 8
    )


def test_an_episode_that_ends_within_the_shared_chunks_leaves_nothing_to_train_on():
    plan = plan_group(4, "prefix", 15)
    assert trainable(plan, [9] * 4).sum() == 0
    samples = samples_of(plan, [9] * 4, np.ones(4))
    assert len(samples.chunk) == 0


def test_a_cluster_that_ends_early_keeps_its_own_part():
    plan = plan_group(4, "tree", 15)
    samples = samples_of(plan, [9, 9, 17, 16], np.array([1.0, 1, -1, -1]))
    assert rows(samples) == [
        *((1, chunk, 1) for chunk in (7, 7, 8, 8)),
        *((2, chunk, -1) for chunk in range(7, 15) for _ in range(2)),
        (5, 15, -1),
        (5, 16, -1),
        (6, 15, -1),
    ]


def test_a_part_that_some_rollouts_share_stands_once_for_each_of_them():
    plan = plan_group(4, "tree", 3)  # splits at 1 and 3
    samples = samples_of(plan, [4, 4, 4, 4], np.array([3.0, 2.0, 1.0, 0.0]))
    assert [row for row in rows(samples) if row[1] == 1] == [
        (1, 1, 3),
        (1, 1, 2),
        (2, 1, 1),
        (2, 1, 0),
    ]


def test_advantages_may_differ_from_chunk_to_chunk():
    plan = plan_group(2, "prefix", 1)
    advantages = np.array([[9.0, 1.0, 2.0], [9.0, 3.0, 0.0]])
    samples = samples_of(plan, [3, 2], advantages)
    assert rows(samples) == [(1, 1, 1), (1, 2, 2), (2, 1, 3)]


@given(
    size=st.sampled_from([2, 4, 8, 16]),
    sharing=st.sampled_from(["none", "prefix", "tree"]),
    shared_chunks=st.integers(0, 40),
    data=st.data(),
)
def test_every_rollout_is_covered_once_and_rows_add_up(size, sharing, shared_chunks, data):
    plan = plan_group(size, sharing, shared_chunks)
    for rollout in range(size):
        parts = [plan.segments[i] for i in plan.path(rollout)]
        assert parts[0].start == 0 and parts[-1].end is None
        assert all(a.end == b.start for a, b in pairwise(parts))
        path = plan.path(rollout)
        assert [plan.segments[i].parent for i in path] == [-1, *path[:-1]]
    assert all(isinstance(s, Segment) and s.parent < i for i, s in enumerate(plan.segments))
    lengths = [0] * size
    for segment in reversed(plan.segments):
        if segment.end is None:
            lengths[segment.first] = segment.start + data.draw(st.integers(1, 5))
    advantages = np.arange(size, dtype=float)
    samples = samples_of(plan, lengths, advantages)
    wanted = trainable(plan, lengths)
    assert len(samples.chunk) == wanted.sum()
    assert samples.advantage.sum() == (wanted * advantages[:, None]).sum()


@pytest.mark.parametrize("bad", [(1, "none", 0), (3, "tree", 4), (4, "prefix", -1)])
def test_impossible_groups_are_refused(bad):
    with pytest.raises(ConfigError):
        plan_group(*bad)
