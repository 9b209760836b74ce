"""Episodes in which every chunk is searched: proposals are tried out in the simulator, then acted.

In each state the policy proposes chunks, the simulator tries them, a critic of its truth says which
of the states they lead to is best, and chunks near the best are tried in turn. What the policy then
learns is the best one found. This is one step of policy improvement, as in expert iteration
(arXiv 1705.08439), with the simulator itself as the model.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from z1_ros.rl.actor import Actor
from z1_ros.rl.collect import SHIFTS, Counts
from z1_ros.rl.critic import Critic, Outcomes
from z1_ros.rl.lanes import LanePool
from z1_ros.rl.replay import Lessons
from z1_ros.rl.search_config import SearchConfig
from z1_ros.rl.worker import Begin, Reply, Request, Trials
from z1_ros.specs import Embodiment
from z1_ros.types import Observation

_CERTAIN = 30.0
"""Logit of what is known: success, or none within the episode."""
_SHARES = {"end_effector_position": 1.0, "end_effector_rotation": 0.5}
"""How far a field is shifted, in parts of ``sigma``; the gripper is shut or opened instead, other
fields stay."""
_SWITCH_SHARE = 0.24
"""Share of chunks nearby that keep the gripper shut or open throughout."""


@dataclass(frozen=True, slots=True)
class SearchJob:
    """An episode to be run."""

    key: tuple[int, ...]
    """Whole numbers that name it; they seed its noise."""
    seed: int
    """Its scene."""
    acting: str
    """What is executed: what the ``search`` finds, the policy's ``own`` chunks, or its own and,
    now and then, one nearby, to ``explore``."""


@dataclass(slots=True)
class Episode:
    """One that was run."""

    job: SearchJob
    """What was asked for."""
    truths: list[np.ndarray] = field(default_factory=list)
    """The simulator's truth before each chunk."""
    steps: list[int] = field(default_factory=list)
    """Actions executed before each chunk."""
    length: int = 0
    """Actions executed in all."""
    success: bool = False
    """The task was reached."""


@dataclass(slots=True)
class _Task:
    """An episode that a lane is running, and the search of its present chunk."""

    number: int
    chunk: int = 0
    seen: Observation | None = None
    own: np.ndarray | None = None
    tried: np.ndarray | None = None
    rounds: int = 0
    best: np.ndarray | None = None
    best_value: float = -np.inf
    first_value: float = 0.0
    lesson: int = -1


class Searcher:
    """Runs episodes on the lanes of a pool."""

    def __init__(
        self, pool: LanePool, actor: Actor, robot: Embodiment, config: SearchConfig, seed: int
    ):
        """Connect lanes and policy.

        Args:
            pool: Where environments step; they must tell the truth.
            actor: Proposes.
            robot: Says what the dimensions of an action are.
            config: How to search.
            seed: Of what is tried near a proposal.
        """
        self._pool = pool
        self._actor = actor
        self._config = config
        self._seed = seed
        self._replan_steps = actor.manifest.replan_steps
        self._low, self._high = robot.action_limits()
        dims = [(f.name, dim) for f in robot.action for dim in f.dims]
        self._share = np.array([_SHARES.get(name, 0.0) for name, _ in dims])
        self._switches = [i for i, (name, _) in enumerate(dims) if name == "gripper_close"]
        self.counts = Counts()
        self.tried_steps = 0
        """Control steps of trials, which left no trace."""

    def run(
        self, jobs: Sequence[SearchJob], critic: Critic | None
    ) -> tuple[list[Episode], Lessons | None]:
        """Run episodes; without a critic nothing is searched, and there are no lessons."""
        self._critic = critic
        self._episodes = [Episode(job) for job in jobs]
        self._lessons = Lessons()
        waiting = deque(_Task(number) for number in range(len(jobs)))
        shifts: list[dict[int, _Task | None]] = [
            dict.fromkeys(range(first, len(self._pool), SHIFTS)) for first in range(SHIFTS)
        ]
        while waiting or any(task for shift in shifts for task in shift.values()):
            for shift in shifts:
                for lane, task in shift.items():
                    if task is not None and self._take_in(task, self._pool.receive(lane)):
                        shift[lane] = None
                self._answer(shift)
                for lane, task in shift.items():
                    if task is None and waiting:
                        shift[lane] = task = waiting.popleft()
                        begin = Begin(seed=jobs[task.number].seed)
                        self._pool.send(lane, Request(begin=begin, observe=True, truth=True))
                        self.counts.renders += 1
        return self._episodes, self._lessons if critic is not None else None

    def _take_in(self, task: _Task, reply: Reply) -> bool:
        """Note an answer of a lane; return whether its episode is over."""
        episode = self._episodes[task.number]
        if reply.trials is not None:
            self._weigh(task, reply.trials)
            return False
        if reply.step is not None:
            self.counts.env_steps += reply.step.consumed
            episode.length = reply.step.steps
            task.chunk += 1
            longest = self._config.max_chunks
            if reply.step.done or task.chunk == longest:
                episode.success = reply.step.success
                return True
        assert reply.truth is not None
        task.seen = reply.observation
        episode.truths.append(reply.truth)
        episode.steps.append(episode.length)
        self.counts.renders += reply.step is not None
        return False

    def _weigh(self, task: _Task, trials: Trials) -> None:
        """Compare what was tried with the best so far."""
        assert self._critic is not None and task.tried is not None
        self.tried_steps += int(trials.steps.sum())
        values = self._critic.values(trials.truth, self._config.doubt)
        values = np.where(trials.over, -_CERTAIN, values)
        # Of several that reach the task, the soonest.
        values = np.where(trials.success, _CERTAIN - 0.05 * trials.steps, values)
        if not task.rounds:
            task.first_value = float(values.mean())
        # What was not proposed has to be clearly better.
        margin = self._config.margin if task.rounds else 0.0
        at = int(values.argmax())
        if values[at] > task.best_value + margin:
            task.best, task.best_value = task.tried[at], float(values[at])
        task.rounds += 1

    def _answer(self, shift: dict[int, _Task | None]) -> None:
        """Let the policy propose where lanes of a shift see, go on searching where they tried."""
        running = [(lane, task) for lane, task in shift.items() if task is not None]
        seeing = [(lane, task) for lane, task in running if task.seen is not None]
        if seeing:
            self._propose([task for _, task in seeing])
        for lane, task in running:
            if self._critic is not None and task.rounds <= self._config.refinements:
                if task.rounds:
                    task.tried = self._nearby(task)
                self._pool.send(lane, Request(trials=task.tried[:, : self._replan_steps]))
            else:
                self._act(lane, task)

    def _propose(self, tasks: Sequence[_Task]) -> None:
        keys = [(*self._episodes[t.number].job.key, t.chunk) for t in tasks]
        count = self._config.proposals if self._critic is not None else 1
        prefix, chunks = self._actor.propose([t.seen for t in tasks], keys, count)
        for i, (task, proposed) in enumerate(zip(tasks, chunks, strict=True)):
            task.seen, task.own, task.tried = None, proposed[0], proposed
            task.rounds, task.best, task.best_value = 0, proposed[0], -np.inf
            if self._critic is not None:
                task.lesson = self._lessons.see(prefix, i)

    def _act(self, lane: int, task: _Task) -> None:
        """Execute a chunk; what was found is the lesson of this state, whoever acts."""
        assert task.own is not None and task.best is not None
        job = self._episodes[task.number].job
        chunk = task.own
        if self._critic is not None:
            gain = task.best_value - task.first_value
            self._lessons.learn(task.lesson, self._actor.normalized(task.best), gain)
            chunk = task.best if job.acting == "search" else task.own
        random = self._random(task, 0)
        if job.acting == "explore" and random.random() < self._config.explore_share:
            chunk = self._shifted(chunk, self._config.sigma, random)
        actions = chunk[: self._replan_steps]
        self._pool.send(lane, Request(actions=actions, observe=True, truth=True))
        self.counts.chunks += 1

    def _nearby(self, task: _Task) -> np.ndarray:
        """Return chunks near the best so far, each time nearer (N, horizon, action_dim)."""
        random = self._random(task, task.rounds)
        sigma = self._config.sigma / 2 ** (task.rounds - 1)
        return np.stack(
            [self._shifted(task.best, sigma, random) for _ in range(self._config.neighbours)]
        )

    def _shifted(self, chunk: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
        """Return a chunk led elsewhere: a shift that all its actions share, or its first half."""
        moved = chunk.copy()
        ramp = np.ones(len(chunk))
        if random.random() < 0.5:
            ramp = np.where(np.arange(len(chunk)) < self._replan_steps / 2, 1.5, 0.5)
        moved += ramp[:, None] * random.normal(0.0, 1.0, chunk.shape[1]) * sigma * self._share
        if random.random() < _SWITCH_SHARE:
            moved[:, self._switches] = random.choice((-1.0, 1.0))
        return np.clip(moved, self._low, self._high).astype(np.float32)

    def _random(self, task: _Task, stream: int) -> np.random.Generator:
        job = self._episodes[task.number].job
        return np.random.default_rng([self._seed, *job.key, task.chunk, stream])


def outcomes_of(episodes: Sequence[Episode], gamma: float, replan_steps: int) -> Outcomes:
    """Return what a critic learns from: each state, and gamma to the chunks left to success."""
    truths, values, searching, numbers = [], [], [], []
    for number, episode in enumerate(episodes):
        left = (episode.length - np.array(episode.steps)) / replan_steps
        truths += episode.truths
        values.append(gamma**left * episode.success)
        searching += [episode.job.acting == "search"] * len(episode.truths)
        numbers += [number] * len(episode.truths)
    return Outcomes(
        truth=np.stack(truths),
        value=np.concatenate(values).astype(np.float32),
        searching=np.array(searching),
        episode=np.array(numbers),
    )
