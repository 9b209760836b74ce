"""Episodes in which the policy acts as it is deployed, and a teacher looks on.

Without a teacher they show one what the policy does when it succeeds; with one, each state that the
policy gets into becomes a lesson: what it saw, and what the teacher would have done.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from z1_ros.learning.distill.practice import Advice
from z1_ros.learning.distill.replay import Lessons
from z1_ros.learning.rollout.collector import SHIFTS, Counts
from z1_ros.learning.rollout.env_pool import EnvPool
from z1_ros.learning.rollout.env_worker import Begin, Reply, Request
from z1_ros.learning.rollout.sampler import Actor
from z1_ros.types import Observation


@dataclass(frozen=True, slots=True)
class WatchJob:
    """An episode to be run."""

    key: tuple[int, ...]
    """Whole numbers that name it; they seed its noise."""
    seed: int
    """Its scene."""


@dataclass(slots=True)
class Episode:
    """One that was run."""

    job: WatchJob
    """What was asked for."""
    truths: list[np.ndarray] = field(default_factory=list)
    """The simulator's truth before each action, if it was asked for."""
    actions: list[np.ndarray] = field(default_factory=list)
    """Each action (action_dim,) that was executed, likewise."""
    starts: list[tuple[int, bytes]] = field(default_factory=list)
    """Control steps and snapshot after each chunk but the last, likewise."""
    chunks: int = 0
    """Chunks begun."""
    success: bool = False
    """The task was reached."""


@dataclass(slots=True)
class _Task:
    """An episode that a worker is running."""

    number: int
    seen: Observation | None = None
    pending: np.ndarray | None = None
    lesson: int = -1


class Watcher:
    """Runs episodes on the workers of a pool, in two shifts as ``Collector`` does."""

    def __init__(self, pool: EnvPool, actor: Actor):
        """Connect workers and policy.

        Args:
            pool: Where environments step; they must tell the truth.
            actor: Acts.
        """
        self._pool = pool
        self._actor = actor
        self._replan_steps = actor.manifest.replan_steps
        self.counts = Counts()

    def run(
        self, jobs: Sequence[WatchJob], advice: Advice | None = None
    ) -> tuple[list[Episode], Lessons]:
        """Run episodes; without advice there are no lessons, but truth and snapshots are noted."""
        self._advice = advice
        self._episodes = [Episode(job) for job in jobs]
        self._lessons = Lessons()
        waiting = deque(_Task(number) for number in range(len(jobs)))
        shifts: list[dict[int, _Task | None]] = [
            dict.fromkeys(range(first, len(self._pool), SHIFTS)) for first in range(SHIFTS)
        ]
        while waiting or any(task for shift in shifts for task in shift.values()):
            for shift in shifts:
                for worker, task in shift.items():
                    if task is not None and self._take_in(task, self._pool.receive(worker)):
                        shift[worker] = None
                self._answer([(worker, task) for worker, task in shift.items() if task is not None])
                for worker, task in shift.items():
                    if task is None and waiting:
                        shift[worker] = task = waiting.popleft()
                        begin = Begin(seed=jobs[task.number].seed)
                        self._pool.send(worker, Request(begin=begin, observe=True))
        return self._episodes, self._lessons

    def _take_in(self, task: _Task, reply: Reply) -> bool:
        """Note an answer of a worker; return whether its episode is over."""
        task.seen = reply.observation
        self.counts.renders += reply.observation is not None
        if reply.advised is not None:
            chunk, valid = reply.advised
            self._lessons.learn(task.lesson, self._actor.normalized(chunk), valid)
        if reply.step is None:
            return False
        episode = self._episodes[task.number]
        if reply.truth is not None:
            episode.truths += list(reply.truth)
            episode.actions += list(task.pending[: len(reply.truth)])
        if reply.snapshot:
            episode.starts.append((reply.step.steps, reply.snapshot))
        self.counts.env_steps += reply.step.consumed
        episode.success = reply.step.success
        return reply.step.done

    def _answer(self, seeing: Sequence[tuple[int, _Task]]) -> None:
        """Let the policy answer what the workers of a shift see, and send its actions."""
        if not seeing:
            return
        episodes = [self._episodes[task.number] for _, task in seeing]
        keys = [(*episode.job.key, episode.chunks) for episode in episodes]
        prefix, chunks = self._actor.see_and_follow([task.seen for _, task in seeing], keys)
        for i, (worker, task) in enumerate(seeing):
            task.pending = np.clip(chunks[i][: self._replan_steps], *self._actor.limits)
            if self._advice is not None:
                task.lesson = self._lessons.see(prefix, i)
            episodes[i].chunks += 1
            self.counts.chunks += 1
            request = Request(
                advice=self._advice,
                actions=task.pending,
                truth=self._advice is None,
                snapshot=self._advice is None,
                observe=True,
            )
            self._pool.send(worker, request)
