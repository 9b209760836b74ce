"""Which rollouts share which part of an episode, and what each part is to learn: arrays only.

A group is G rollouts of one scene. Their common parts are run once: a plan is a tree of segments
whose leaves are the rollouts. Chunks are counted from the start of the episode.
Source: Z-1 (arXiv 2606.31846) §3.2 shared prefix, §3.3 tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ConfigError, closest

SHARING = ("none", "prefix", "tree")
CREDIT = ("leaf", "mean", "td")


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an episode that rollouts ``first`` … ``last - 1`` have in common."""

    parent: int
    """Segment that it continues; -1 at the start of the episode."""
    start: int
    """First chunk."""
    end: int | None
    """Chunk at which it splits; None where it goes on to the end of the episode."""
    first: int
    """First rollout that passes through it."""
    last: int
    """One past the last."""

    @property
    def size(self) -> int:
        """Rollouts that pass through it."""
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Plan:
    """A tree of segments; a parent stands before its children."""

    size: int
    """Rollouts G of the group."""
    segments: tuple[Segment, ...]
    """All segments."""

    @property
    def masked(self) -> int:
        """Chunks at the start that all rollouts share, which says nothing about any of them."""
        root = self.segments[0]
        return (root.end or 0) if root.size == self.size > 1 else 0

    def path(self, rollout: int) -> list[int]:
        """Return the segments of one rollout, from the start of the episode on."""
        return [i for i, s in enumerate(self.segments) if s.first <= rollout < s.last]


def branch_points(size: int, prefix: int) -> list[int]:
    """Return the chunks b_1 … b_k at which each cluster of a tree of 2^k rollouts splits in two.

    b_l = ⌊P / 2^(k-l)⌋ (Z-1 §3.3); neighbours are equal where P is small.

    Raises:
        ConfigError: ``size`` is not a power of two.
    """
    if size < 1 or size & (size - 1):
        raise ConfigError(f"a tree needs a group of 2, 4, 8, … rollouts, not {size}")
    depth = size.bit_length() - 1
    return [prefix >> (depth - level) for level in range(1, depth + 1)]


def plan_group(size: int, sharing: str, prefix: int) -> Plan:
    """Return the segments of a group.

    Args:
        size: Rollouts G, at least 2.
        sharing: ``none`` (G whole episodes), ``prefix`` (one common start) or ``tree``.
        prefix: Chunks P of the longest common part; 0 shares nothing.

    Raises:
        ConfigError: Out of range, or a tree whose size is no power of two.
    """
    if size < 2 or prefix < 0:
        raise ConfigError(f"a group of {size} with prefix {prefix}: expected at least 2, and 0")
    if sharing not in SHARING:
        raise ConfigError(f"no sharing {sharing!r}. {closest(sharing, SHARING)}")
    splits: dict[int, int] = {}
    if sharing == "prefix":
        splits = {prefix: size}
    elif sharing == "tree":
        for point in branch_points(size, prefix):
            splits[point] = 2 * splits.get(point, 1)
    elif sharing == "none":
        splits = {0: size}
    segments: list[Segment] = []
    # (parent, start, rollouts) of the clusters that are about to begin a segment
    clusters = [(-1, 0, range(size))]
    if 0 in splits:
        clusters = _split(clusters[0], splits.pop(0))
    for point, ways in sorted(splits.items()):
        following = []
        for parent, start, members in clusters:
            segments.append(Segment(parent, start, point, members[0], members[-1] + 1))
            following += _split((len(segments) - 1, point, members), ways)
        clusters = following
    for parent, start, members in clusters:
        segments.append(Segment(parent, start, None, members[0], members[-1] + 1))
    return Plan(size, tuple(segments))


def _split(cluster: tuple[int, int, range], ways: int) -> list[tuple[int, int, range]]:
    parent, start, members = cluster
    share = len(members) // ways
    return [(parent, start, members[i * share : (i + 1) * share]) for i in range(ways)]


def prefix_at(iteration: int, first: int, last: int, iterations: int) -> int:
    """Return the prefix P of an iteration: from ``first`` to ``last`` in equal steps.

    Args:
        iteration: 0 for the first.
        first: P of the first iteration.
        last: P of iteration ``iterations`` and all after it.
        iterations: Length of the schedule; 0 or less is ``last`` at once.
    """
    if iterations <= 0:
        return last
    done = min(iteration / iterations, 1.0)
    return int(np.floor(first + (last - first) * done + 0.5))


@dataclass(frozen=True, slots=True)
class Samples:
    """What a group gives to the loss: one row for each trainable (chunk, advantage)."""

    segment: np.ndarray
    """Segment of the chunk (N,) int64."""
    chunk: np.ndarray
    """Its number, from the start of the episode (N,) int64."""
    advantage: np.ndarray
    """(N,) float64."""
    weight: np.ndarray
    """Rollouts that the row stands for (N,) float64; the loss is divided by their sum."""


def trainable(plan: Plan, lengths: Sequence[int]) -> np.ndarray:
    """Return which chunks of each rollout are trained on: (G, longest) bool.

    Args:
        plan: The group's segments.
        lengths: Chunks of each rollout, shared ones included (G,).
    """
    lengths = np.asarray(lengths)
    chunk = np.arange(int(lengths.max(initial=0)))
    return (chunk >= plan.masked) & (chunk < lengths[:, None])


def samples_of(
    plan: Plan, lengths: Sequence[int], advantages: np.ndarray, returns: np.ndarray, credit: str
) -> Samples:
    """Return the rows that a group trains on.

    A segment that several, but not all, rollouts share stands once for each of them with the
    rollout's own advantage (``leaf``, as Z-1), or once with their mean and their number as weight
    (``mean``: the same gradient while nothing is clipped), or with the gain in mean return over
    the segment it branched from (``td``), in units of the advantages.

    Args:
        plan: The group's segments.
        lengths: Chunks of each rollout, shared ones included (G,).
        advantages: Of each rollout (G,), or of each of its chunks (G, longest).
        returns: Calibrated reward of each rollout (G,).
        credit: ``leaf``, ``mean`` or ``td``.
    """
    if credit not in CREDIT:
        raise ConfigError(f"no credit {credit!r}. {closest(credit, CREDIT)}")
    advantages = np.asarray(advantages, np.float64)
    if advantages.ndim == 1:
        advantages = np.repeat(advantages[:, None], int(max(lengths)), 1)
    rows: list[tuple[int, int, float, float]] = []
    for number, segment in enumerate(plan.segments):
        members = range(segment.first, segment.last)
        stop = max(lengths[i] for i in members)
        if segment.end is not None:
            stop = min(stop, segment.end)
        for chunk in range(max(segment.start, plan.masked), stop):
            own = advantages[segment.first : segment.last, chunk]
            if credit == "leaf":
                rows += [(number, chunk, advantage, 1.0) for advantage in own]
                continue
            worth = own.mean() if credit == "mean" else _gain(plan, number, advantages, returns)
            rows.append((number, chunk, worth, float(segment.size)))
    table = np.array(rows, np.float64).reshape(-1, 4)
    return Samples(
        segment=table[:, 0].astype(np.int64),
        chunk=table[:, 1].astype(np.int64),
        advantage=table[:, 2],
        weight=table[:, 3],
    )


def _gain(plan: Plan, number: int, advantages: np.ndarray, returns: np.ndarray) -> float:
    """Return mean return below a segment less that below its parent, scaled as advantages are."""
    returns = np.asarray(returns, np.float64)
    segment = plan.segments[number]
    if advantages.min() >= 0:
        # All succeeded, and are compared with their slowest: no success is pushed down.
        return float(advantages[segment.first : segment.last, 0].mean())
    first, last = 0, plan.size
    if segment.parent >= 0:
        first, last = plan.segments[segment.parent].first, plan.segments[segment.parent].last
    gain = returns[segment.first : segment.last].mean() - returns[first:last].mean()
    spread = returns.std()
    return gain * (advantages[:, 0].std() / spread) if spread > 0 else 0.0
