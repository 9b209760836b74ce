"""Groups of rollouts: workers step and render, the learner infers in batches, nothing runs twice.

A segment of a plan is one job of one worker: go to its start (a scene, or the snapshot in which its
parent ended), act until its end. The workers work in two shifts: while one steps and renders, the
policy answers the other. Which worker does what, and which observations share a batch, follows from
the order of the answers' numbers alone, never from time; so equal weights and seeds give equal
rollouts, wherever the workers are.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from z1_ros.learning.rollout.env_pool import EnvPool
from z1_ros.learning.rollout.env_worker import Begin, Reply, Request
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import Plan, Segment
from z1_ros.learning.rollout.sampler import Actor, Chunk
from z1_ros.models.network.pi05 import Prefix
from z1_ros.types import Observation

SHIFTS = 2
WHOLE_EPISODE = Plan(1, (Segment(-1, 0, None, 0, 1),))
"""A group of one, for evaluation."""


@dataclass(frozen=True, slots=True)
class GroupJob:
    """A group to be rolled out."""

    key: tuple[int, ...]
    """Whole numbers that name it; they seed its noise."""
    plan: Plan
    """Its segments."""
    seed: int
    """Its scene."""


@dataclass(slots=True)
class Executed:
    """A chunk that was acted on."""

    chunk: Chunk
    """What the policy gave."""
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
    trace: list[bytes] = field(default_factory=list)
    """Per chunk: actions and the state that followed, if asked for."""


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
    """What a collection cost."""

    chunks: int = 0
    """Policy answers."""
    env_steps: int = 0
    """Control steps."""
    restores: int = 0
    """Snapshots that a worker went back to."""
    renders: int = 0
    """Observations that were drawn."""


@dataclass(slots=True)
class _Task:
    """A segment that a worker is running."""

    group: int
    number: int
    begin: Begin | None
    chunk: int
    seen: Observation | None
    pending: Chunk | None = None


class Collector:
    """Runs groups on the workers of a pool."""

    def __init__(
        self,
        pool: EnvPool,
        actor: Actor,
        replan_steps: int,
        *,
        max_chunks: int = 0,
        trace: bool = False,
    ):
        """Connect workers and policy.

        Args:
            pool: Where environments step.
            actor: Answers their observations.
            replan_steps: Actions executed of each chunk.
            max_chunks: An episode that is sampled ends as a failure after so many chunks; 0: at
                the task's own horizon. Evaluation always has the task's own.
            trace: Keep bytes of actions and states, to compare runs bit for bit.
        """
        self._pool = pool
        self._actor = actor
        self._replan_steps = replan_steps
        self._max_chunks = max_chunks
        self._trace = trace
        self.counts = Counts()
        self.inputs: list[dict[str, Tensor]] = []

    def run(
        self, jobs: Sequence[GroupJob], sde: FlowSde | None, keep: "Keeper | None" = None
    ) -> list[Group]:
        """Roll out groups.

        Args:
            jobs: The groups.
            sde: How to sample; None follows the flow, as a deployed policy does.
            keep: Keeps encoded observations of the chunks that will be trained on.
        """
        groups = [Group(job, [Rollout() for _ in job.plan.segments]) for job in jobs]
        limit = self._max_chunks if sde is not None else 0
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
                        done = self._take_in(
                            groups, waiting, task, self._pool.receive(worker), limit
                        )
                        shift[worker] = None if done else task
                for worker, task in shift.items():
                    if task is None and waiting:
                        shift[worker] = self._give_out(worker, waiting.popleft())
                self._answer(groups, shift, sde, keep)
        return groups

    def _give_out(self, worker: int, task: _Task) -> _Task:
        """Start a job; the first segments of a scene have yet to see it."""
        assert task.begin is not None
        self.counts.restores += bool(task.begin.snapshot)
        if task.seen is None:
            self._pool.send(worker, Request(begin=task.begin, observe=True))
            task.begin = None
            self.counts.renders += 1
        return task

    def _answer(
        self,
        groups: list[Group],
        shift: dict[int, _Task | None],
        sde: FlowSde | None,
        keep: "Keeper | None",
    ) -> None:
        """Let the policy answer what the workers of a shift see, and send its actions."""
        seeing = [
            (worker, task) for worker, task in shift.items() if task is not None and task.seen
        ]
        if not seeing:
            return
        tasks = [task for _, task in seeing]
        keys = [(*groups[t.group].job.key, t.number, t.chunk) for t in tasks]
        observations = [task.seen for task in tasks]
        if sde is None:
            chunks = self._actor.follow(observations, keys)
        else:
            wanted = [t.chunk >= groups[t.group].job.plan.masked for t in tasks]
            keeper = keep or Keeper()
            chunks = self._actor.act(
                observations, keys, sde, lambda prefix, inputs: keeper(prefix, inputs, wanted)
            )
        for (worker, task), chunk in zip(seeing, chunks, strict=True):
            end = groups[task.group].job.plan.segments[task.number].end
            actions = (chunk if sde is None else chunk.actions)[: self._replan_steps]
            request = Request(
                begin=task.begin,
                actions=actions,
                observe=True,
                snapshot=end is not None and task.chunk + 1 == end,
            )
            self._pool.send(worker, request)
            task.begin, task.seen, task.pending = None, None, chunk
            self.counts.chunks += 1

    def _take_in(
        self,
        groups: list[Group],
        waiting: deque[_Task],
        task: _Task,
        reply: Reply,
        max_chunks: int,
    ) -> bool:
        """Note an answer of a worker; return whether its job is done."""
        task.seen = reply.observation
        if reply.step is None:
            return False
        group = groups[task.group]
        rollout = group.segments[task.number]
        assert task.pending is not None
        rollout.executed.append(Executed(task.pending, reply.step.consumed))
        if self._trace:
            rollout.trace.append(_bytes_of(task.pending, reply))
        task.chunk += 1
        self.counts.env_steps += reply.step.consumed
        self.counts.renders += reply.observation is not None
        if reply.step.done or task.chunk == max_chunks:
            rollout.success, rollout.over = reply.step.success, True
            return True
        if task.chunk != group.job.plan.segments[task.number].end:
            return False
        begin = Begin(snapshot=reply.snapshot)
        for child, segment in enumerate(group.job.plan.segments):
            if segment.parent == task.number:
                waiting.append(_Task(task.group, child, begin, task.chunk, reply.observation))
        return True


def _bytes_of(chunk: Chunk | np.ndarray, reply: Reply) -> bytes:
    actions = chunk if isinstance(chunk, np.ndarray) else chunk.actions
    seen = reply.observation
    parts = [actions.tobytes(), b"" if isinstance(chunk, np.ndarray) else _log_bytes(chunk)]
    if seen is not None:
        parts += [value.tobytes() for _, value in sorted(seen.state.items())]
        parts += [image.tobytes() for _, image in sorted(seen.images.items())]
    return b"".join(parts)


def _log_bytes(chunk: Chunk) -> bytes:
    return chunk.log_probs.numpy().tobytes()


class Keeper:
    """Numbers the observations that will be trained on; keeps nothing itself."""

    def __call__(
        self, prefix: Prefix, inputs: dict[str, Tensor], wanted: Sequence[bool]
    ) -> list[int]:
        """Return each observation's row, -1 where it is not wanted."""
        return [-1] * len(wanted)
