"""The one scheduler of rollouts: workers step and render, the policy acts in batches.

A segment of a plan is one job of one worker: go to its start (a scene, or the snapshot in which its
parent ended), act until its end. The workers take turns in two shifts: while one steps and renders,
the policy acts for the other. Which worker does what, and which observations share a batch, follows
from the order of the workers' numbers alone, never from time; so equal weights and seeds give equal
rollouts, wherever the workers are.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from z1_ros.learning.rollout.env_pool import EnvPool
from z1_ros.learning.rollout.env_worker import Begin, Reply, Request
from z1_ros.learning.rollout.features import RolloutFeatures
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import Plan, Segment
from z1_ros.learning.rollout.sampler import SampledChunk, Sampler
from z1_ros.types import Observation

SHIFTS = 2
WHOLE_EPISODE = Plan(1, (Segment(-1, 0, None, 0, 1),))
"""A group of one: an episode that shares nothing."""


@dataclass(frozen=True, slots=True)
class GroupJob:
    """A group to be rolled out."""

    key: tuple[int, ...]
    """Whole numbers that name it; they seed its noise."""
    plan: Plan
    """Its segments."""
    seed: int
    """Its scene."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An observation for which the policy has to act."""

    job: GroupJob
    """The group."""
    segment: int
    """Number of the segment in the group's plan."""
    chunk: int
    """Number of the chunk, from the start of the episode."""
    observation: Observation
    """What is seen."""

    @property
    def key(self) -> tuple[int, ...]:
        """Whole numbers that name the chunk."""
        return (*self.job.key, self.segment, self.chunk)


@dataclass(frozen=True, slots=True)
class Move:
    """What the policy does at a turn."""

    actions: np.ndarray
    """Actions to execute (k, action_dim)."""
    chunk: Any
    """What is kept of the chunk."""
    request: Callable[..., Request] = Request
    """Makes the worker's request of ``begin``, ``actions``, ``observe`` and ``snapshot``."""
    snapshot: bool = False
    """Take a snapshot after the actions even if the segment does not end."""


Act = Callable[[Sequence[Turn]], Sequence[Move]]
"""The policy: acts for a batch of turns."""
Note = Callable[[Turn, Move, Reply], None]
"""Takes note of what came of a move."""


@dataclass(slots=True)
class Executed:
    """A chunk that was acted on."""

    chunk: Any
    """What was kept of it."""
    steps: int
    """Actions of it that were executed."""


@dataclass(slots=True)
class Rollout:
    """One segment that was run."""

    executed: list[Executed] = field(default_factory=list)
    """Its chunks, in order."""
    success: bool = False
    """The task was reached in it."""
    over: bool = False
    """The episode ended in it."""


@dataclass(slots=True)
class Group:
    """A group that was rolled out."""

    job: GroupJob
    """What was asked for."""
    segments: list[Rollout]
    """By the plan's numbers; empty below one in which the episode ended."""

    @property
    def success(self) -> np.ndarray:
        """Whether each rollout reached the task (G,) bool."""
        paths = [self.job.plan.path(i) for i in range(self.job.plan.size)]
        return np.array([any(self.segments[s].success for s in path) for path in paths])

    @property
    def lengths(self) -> np.ndarray:
        """Chunks of each rollout, shared ones included (G,)."""
        paths = [self.job.plan.path(i) for i in range(self.job.plan.size)]
        return np.array([sum(len(self.segments[s].executed) for s in path) for path in paths])


@dataclass(slots=True)
class Counts:
    """What rollouts cost."""

    chunks: int = 0
    """Chunks that the policy gave."""
    env_steps: int = 0
    """Control steps."""
    restores: int = 0
    """Snapshots that a worker went back to."""
    renders: int = 0
    """Observations that were rendered."""


@dataclass(slots=True)
class _Task:
    """A segment that a worker is running."""

    group: int
    segment: int
    begin: Begin | None
    chunk: int
    seen: Observation | None
    turn: Turn | None = None
    move: Move | None = None


class Collector:
    """Runs groups on the workers of a pool."""

    def __init__(self, pool: EnvPool):
        """Take the workers of a pool."""
        self._pool = pool
        self.counts = Counts()
        """What all runs cost together."""

    def run(
        self, jobs: Sequence[GroupJob], act: Act, *, max_chunks: int = 0, note: Note | None = None
    ) -> list[Group]:
        """Roll out groups.

        Args:
            jobs: The groups.
            act: The policy.
            max_chunks: An episode ends as a failure after so many chunks; 0: at the task's horizon.
            note: Takes note of each reply.
        """
        groups = [Group(job, [Rollout() for _ in job.plan.segments]) for job in jobs]
        waiting: deque[_Task] = deque()
        for number, job in enumerate(jobs):
            for root, segment in enumerate(job.plan.segments):
                if segment.parent < 0:
                    waiting.append(_Task(number, root, Begin(seed=job.seed), 0, None))
        shifts: list[dict[int, _Task | None]] = [
            dict.fromkeys(range(first, len(self._pool), SHIFTS)) for first in range(SHIFTS)
        ]
        while waiting or any(task for shift in shifts for task in shift.values()):
            for shift in shifts:
                for worker, task in shift.items():
                    if task is not None:
                        reply = self._pool.receive(worker)
                        if task.turn and task.move and note is not None:
                            note(task.turn, task.move, reply)
                        done = self._take(groups[task.group], waiting, task, reply, max_chunks)
                        shift[worker] = None if done else task
                for worker, task in shift.items():
                    if task is None and waiting:
                        shift[worker] = self._start(worker, waiting.popleft())
                self._act(groups, shift, act)
        return groups

    def _start(self, worker: int, task: _Task) -> _Task:
        """Give a job to a worker; the first segments of a scene have yet to see it."""
        assert task.begin is not None
        self.counts.restores += bool(task.begin.snapshot)
        if task.seen is None:
            self._pool.send(worker, Request(begin=task.begin, observe=True))
            task.begin = None
            self.counts.renders += 1
        return task

    def _act(self, groups: list[Group], shift: dict[int, _Task | None], act: Act) -> None:
        """Let the policy act for the workers of a shift, and send its actions."""
        ready = [
            (worker, task, Turn(groups[task.group].job, task.segment, task.chunk, task.seen))
            for worker, task in shift.items()
            if task and task.seen
        ]
        if not ready:
            return
        moves = act([turn for _, _, turn in ready])
        for (worker, task, turn), move in zip(ready, moves, strict=True):
            end = turn.job.plan.segments[task.segment].end
            request = move.request(
                begin=task.begin,
                actions=move.actions,
                observe=True,
                snapshot=move.snapshot or (end is not None and task.chunk + 1 == end),
            )
            self._pool.send(worker, request)
            task.begin, task.seen, task.turn, task.move = None, None, turn, move
            self.counts.chunks += 1

    def _take(
        self, group: Group, waiting: deque[_Task], task: _Task, reply: Reply, max_chunks: int
    ) -> bool:
        """Take a worker's reply; return whether its job is done."""
        task.seen = reply.observation
        if reply.step is None:
            return False
        rollout = group.segments[task.segment]
        assert task.move is not None
        rollout.executed.append(Executed(task.move.chunk, reply.step.consumed))
        task.chunk += 1
        self.counts.env_steps += reply.step.consumed
        self.counts.renders += reply.observation is not None
        if reply.step.done or task.chunk == max_chunks:
            rollout.success, rollout.over = reply.step.success, True
            return True
        if task.chunk != group.job.plan.segments[task.segment].end:
            return False
        begin = Begin(snapshot=reply.snapshot)
        for child, segment in enumerate(group.job.plan.segments):
            if segment.parent == task.segment:
                waiting.append(_Task(task.group, child, begin, task.chunk, reply.observation))
        return True


def sampling(sampler: Sampler, sde: FlowSde, features: RolloutFeatures | None = None) -> Act:
    """Return a policy that explores: chunks are sampled with noise.

    Args:
        sampler: Samples.
        sde: How.
        features: Keeps the observations of the chunks that will be trained on.
    """
    replan_steps = sampler.manifest.replan_steps

    def act(turns: Sequence[Turn]) -> list[Move]:
        wanted = [turn.chunk >= turn.job.plan.masked for turn in turns]
        chunks: list[SampledChunk] = sampler.sample(
            [turn.observation for turn in turns],
            [turn.key for turn in turns],
            sde,
            lambda prefix, inputs: (
                features.keep(prefix, inputs, wanted) if features else [-1] * len(turns)
            ),
        )
        return [Move(chunk.actions[:replan_steps], chunk) for chunk in chunks]

    return act


def following(sampler: Sampler) -> Act:
    """Return the policy as it is deployed: it follows the flow, without exploration noise."""
    replan_steps = sampler.manifest.replan_steps

    def act(turns: Sequence[Turn]) -> list[Move]:
        chunks, _ = sampler.follow([t.observation for t in turns], [t.key for t in turns])
        return [Move(chunk[:replan_steps], chunk) for chunk in chunks]

    return act
