"""The scheduler of rollouts: environment workers step and render, the policy acts in batches.

Each segment of a plan is one job of one worker. The worker resets to the start of the segment (a
scene, or the snapshot in which the parent segment ended) and executes actions until its end. The
workers form two shifts: while one shift steps and renders, the policy acts for the other. The
assignment of jobs to workers and of observations to batches depends only on the order of the worker
numbers, never on time. Equal weights and seeds therefore give equal rollouts.
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
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.types import Observation

SHIFTS = 2
WHOLE_EPISODE = Plan(1, (Segment(-1, 0, None, 0, 1),))
"""Plan of a group with one rollout: a whole episode."""


@dataclass(frozen=True, slots=True)
class GroupJob:
    """A group of rollouts of one scene to run."""

    key: tuple[int, ...]
    """Key of the group, as integers; it seeds the group's noise."""
    plan: Plan
    seed: int


def episode_jobs(iteration: int, seeds: Sequence[int]) -> list[GroupJob]:
    """Return the jobs of an iteration: one whole episode for each scene seed."""
    return [GroupJob((iteration, i), WHOLE_EPISODE, seed) for i, seed in enumerate(seeds)]


@dataclass(frozen=True, slots=True)
class Turn:
    """An observation for which the policy has to act."""

    job: GroupJob
    segment: int
    """Number of the segment in the group's plan."""
    chunk: int
    """Number of the next chunk, counted from the start of the episode."""
    observation: Observation

    @property
    def key(self) -> tuple[int, ...]:
        """Key of the chunk, as integers; it seeds the chunk's noise."""
        return (*self.job.key, self.segment, self.chunk)


@dataclass(frozen=True, slots=True)
class Move:
    """Decision of the policy at a turn."""

    actions: np.ndarray
    """Actions to execute (k, action_dim)."""
    chunk: Any
    """Data about the chunk to store in the rollout, for example a ``SampledChunk``."""
    request: Callable[..., Request] = Request
    """Function that makes the worker's request from ``begin``, ``actions``, ``observe`` and
    ``snapshot``."""
    snapshot: bool = False
    """Whether to take a snapshot after the actions even if the segment does not end."""


Act = Callable[[Sequence[Turn]], Sequence[Move]]
"""Policy function: returns a move for each turn of a batch."""
Note = Callable[[Turn, Move, Reply], None]
"""Function that is called with each move and the worker's reply to it."""


@dataclass(slots=True)
class Executed:
    """Data of an executed action chunk, from ``Move.chunk``, and the number of executed actions."""

    chunk: Any
    steps: int


@dataclass(slots=True)
class Rollout:
    """Result of one segment: its chunks in order, and whether task or episode ended in it."""

    executed: list[Executed] = field(default_factory=list)
    success: bool = False
    over: bool = False


@dataclass(slots=True)
class Group:
    """Results of a group of rollouts."""

    job: GroupJob
    segments: list[Rollout]
    """Result of each segment, in the order of the plan. The descendants of a segment in which the
    episode ended have no chunks."""

    @property
    def success(self) -> np.ndarray:
        """Whether each rollout reached the task (G,) bool."""
        paths = [self.job.plan.path(i) for i in range(self.job.plan.size)]
        return np.array([any(self.segments[s].success for s in path) for path in paths])

    @property
    def lengths(self) -> np.ndarray:
        """Number of chunks in each rollout, including shared chunks (G,)."""
        paths = [self.job.plan.path(i) for i in range(self.job.plan.size)]
        return np.array([sum(len(self.segments[s].executed) for s in path) for path in paths])


@dataclass(slots=True)
class Counts:
    """Numbers of chunks, executed control steps, restored snapshots, rendered observations."""

    chunks: int = 0
    env_steps: int = 0
    restores: int = 0
    renders: int = 0


@dataclass(slots=True)
class _Task:
    """A segment that waits for a worker or runs on one."""

    group: Group
    segment: int
    begin: Begin | None
    chunk: int
    seen: Observation | None
    turn: Turn | None = None
    move: Move | None = None


class Collector:
    """Runs groups of rollouts on the workers of a pool."""

    def __init__(self, pool: EnvPool):
        self._pool = pool
        self.counts = Counts()
        """Total counts of all calls of ``run``."""

    def run(
        self, jobs: Sequence[GroupJob], act: Act, *, max_chunks: int = 0, note: Note | None = None
    ) -> list[Group]:
        """Run groups and return their results, in the order of ``jobs``.

        ``act`` chooses the actions; ``note`` is called with each move and the worker's reply to it.
        After ``max_chunks`` an episode ends as a failure; 0: only the task's horizon ends it.
        """
        groups = [Group(job, [Rollout() for _ in job.plan.segments]) for job in jobs]
        waiting = deque(
            _Task(group, number, group.job.seed, 0, None)
            for group in groups
            for number, segment in enumerate(group.job.plan.segments)
            if segment.parent < 0
        )
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
                        done = self._take(waiting, task, reply, max_chunks)
                        shift[worker] = None if done else task
                for worker, task in shift.items():
                    if task is None and waiting:
                        shift[worker] = self._start(worker, waiting.popleft())
                self._act(shift, act)
        return groups

    def _start(self, worker: int, task: _Task) -> _Task:
        """Give a task to a worker; a task without an observation requests one first."""
        assert task.begin is not None
        self.counts.restores += isinstance(task.begin, bytes)
        if task.seen is None:
            self._pool.send(worker, Request(begin=task.begin, observe=True))
            task.begin = None
            self.counts.renders += 1
        return task

    def _act(self, shift: dict[int, _Task | None], act: Act) -> None:
        """Let the policy act for the workers of a shift, and send the actions to the workers."""
        ready = [
            (worker, task, Turn(task.group.job, task.segment, task.chunk, task.seen))
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

    def _take(self, waiting: deque[_Task], task: _Task, reply: Reply, max_chunks: int) -> bool:
        """Store a worker's reply; return whether its segment has ended."""
        task.seen = reply.observation
        if reply.step is None:
            return False
        rollout, segments = task.group.segments[task.segment], task.group.job.plan.segments
        assert task.move is not None
        rollout.executed.append(Executed(task.move.chunk, reply.step.consumed))
        task.chunk += 1
        self.counts.env_steps += reply.step.consumed
        self.counts.renders += reply.observation is not None
        if reply.step.done or task.chunk == max_chunks:
            rollout.success, rollout.over = reply.step.success, True
            return True
        if task.chunk != segments[task.segment].end:
            return False
        for child, segment in enumerate(segments):
            if segment.parent == task.segment:
                waiting.append(
                    _Task(task.group, child, reply.snapshot, task.chunk, reply.observation)
                )
        return True


def sampling(sampler: Sampler, sde: FlowSde, features: RolloutFeatures | None = None) -> Act:
    """Return a policy function that samples chunks with exploration noise.

    ``features`` stores the observations of the chunks that will be trained on.
    """
    replan_steps = sampler.manifest.replan_steps

    def act(turns: Sequence[Turn]) -> list[Move]:
        prefix, inputs = sampler.encode([turn.observation for turn in turns])
        wanted = [turn.chunk >= turn.job.plan.masked for turn in turns]
        rows = features.keep(prefix, inputs, wanted) if features else [-1] * len(turns)
        chunks = sampler.sample(prefix, rows, [turn.key for turn in turns], sde)
        return [Move(chunk.actions[:replan_steps], chunk) for chunk in chunks]

    return act


def following(sampler: Sampler) -> Act:
    """Return a policy function that acts as deployed: it follows the flow, without exploration."""
    replan_steps = sampler.manifest.replan_steps

    def act(turns: Sequence[Turn]) -> list[Move]:
        chunks, _ = sampler.follow([t.observation for t in turns], [t.key for t in turns])
        return [Move(chunk[:replan_steps], chunk) for chunk in chunks]

    return act
