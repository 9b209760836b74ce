"""Plans of groups: which rollouts share which part of an episode, and which chunks are trained on.

A group is G rollouts of one scene. Their common parts are run once: a plan is a tree of segments,
and each of its G leaves is the end of one rollout. Chunk numbers count from the start of the
episode.
Source: Z-1 (arXiv 2606.31846) §3.2 shared prefix, §3.3 tree.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from z1_ros.errors import ConfigError

Sharing = Literal["none", "prefix", "tree"]
"""Sharing between the rollouts of a group: nothing, one common start, or a tree of parts."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Chunks ``start`` … ``end - 1`` of an episode, common to rollouts ``first`` … ``last - 1``."""

    parent: int
    """Number of the segment that this one continues; -1 at the start of the episode."""
    start: int
    end: int | None
    """Number of the chunk at which the segment splits; None: it runs to the end of the episode."""
    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of rollouts that contain this segment."""
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Plan:
    """A tree of segments for a group of ``size`` rollouts; each parent precedes its children."""

    size: int
    segments: tuple[Segment, ...]
    """All segments; their index is their number."""

    @property
    def masked(self) -> int:
        """Number of chunks at the start that all rollouts share; they are not trained on."""
        root = self.segments[0]
        return (root.end or 0) if root.size == self.size > 1 else 0

    def path(self, rollout: int) -> list[int]:
        """Return the segment numbers of one rollout, from the start of the episode."""
        return [i for i, s in enumerate(self.segments) if s.first <= rollout < s.last]


def branch_points(size: int, shared_chunks: int) -> list[int]:
    """Return the chunks b_1 … b_k at which each cluster of a tree of 2^k rollouts splits in two.

    b_l = ⌊P / 2^(k-l)⌋ (Z-1 §3.3). Adjacent branch points are equal if P is small. Raises
    ConfigError if ``size`` is not a power of two.
    """
    if size < 1 or size & (size - 1):
        raise ConfigError(f"a tree needs a group of 2, 4, 8, … rollouts, not {size}")
    depth = size.bit_length() - 1
    return [shared_chunks >> (depth - level) for level in range(1, depth + 1)]


def plan_group(size: int, sharing: Sharing, shared_chunks: int) -> Plan:
    """Return the plan of a group of G ≥ 2 rollouts, whose longest shared part has P ≥ 0 chunks.

    Raises ConfigError for other values, and if the size of a tree is not a power of two.
    """
    if size < 2 or shared_chunks < 0:
        raise ConfigError(
            f"a group has {size} rollouts and {shared_chunks} shared chunks, expected at least 2, "
            "and at least 0"
        )
    # Into how many parts each cluster splits, by chunk.
    splits = {shared_chunks if sharing == "prefix" else 0: size}
    if sharing == "tree":
        splits = {p: 2**n for p, n in Counter(branch_points(size, shared_chunks)).items()}
    segments: list[Segment] = []
    # (parent, start, rollouts) of the clusters whose next segment is to be added
    clusters = [(-1, 0, range(size))]
    for point, ways in sorted(splits.items()):
        following = []
        for parent, start, members in clusters:
            if point > start:  # else nothing is shared
                segments.append(Segment(parent, start, point, members[0], members[-1] + 1))
                parent = len(segments) - 1
            share = len(members) // ways
            parts = [members[i : i + share] for i in range(0, len(members), share)]
            following += [(parent, point, part) for part in parts]
        clusters = following
    for parent, start, members in clusters:
        segments.append(Segment(parent, start, None, members[0], members[-1] + 1))
    return Plan(size, tuple(segments))


@dataclass(frozen=True, slots=True)
class Samples:
    """Training samples of a group: one row for each pair of trainable chunk and advantage."""

    segment: np.ndarray
    """Number of the segment that contains the chunk (N,) int64."""
    chunk: np.ndarray
    """Number of the chunk (N,) int64."""
    advantage: np.ndarray
    """Advantage of the chunk (N,) float64."""


def trainable(plan: Plan, lengths: Sequence[int]) -> np.ndarray:
    """Return which chunks of rollouts with ``lengths`` (G,) are trained on: (G, longest) bool."""
    counts = np.asarray(lengths)
    chunk = np.arange(int(counts.max(initial=0)))
    return (chunk >= plan.masked) & (chunk < counts[:, None])


def samples_of(plan: Plan, lengths: Sequence[int], advantages: np.ndarray) -> Samples:
    """Return the training samples of a group.

    A chunk that several rollouts share, but not all, gives one row for each of these rollouts, with
    the advantage of that rollout. ``lengths`` are the numbers of chunks of the rollouts (G,), with
    shared chunks; ``advantages`` are those of rollouts (G,), or of their chunks (G, longest).
    """
    advantages = np.asarray(advantages, np.float64)
    if advantages.ndim == 1:
        advantages = np.repeat(advantages[:, None], int(max(lengths)), 1)
    rows: list[tuple[int, int, float]] = []
    for number, segment in enumerate(plan.segments):
        stop = max(lengths[i] for i in range(segment.first, segment.last))
        if segment.end is not None:
            stop = min(stop, segment.end)
        for chunk in range(max(segment.start, plan.masked), stop):
            own = advantages[segment.first : segment.last, chunk]
            rows += [(number, chunk, advantage) for advantage in own]
    segments, chunks, values = np.array(rows, np.float64).reshape(-1, 3).T
    return Samples(segments.astype(np.int64), chunks.astype(np.int64), values)
