"""``z1-teach``: reinforcement learning through a teacher that is told the truth.

Where a success says too little of each chunk, a teacher that knows more learns from it sooner.

An iteration is one of three things, in this order: the first one watches the policy and lets a
teacher that is told the simulator's truth imitate what succeeded; those after it let the teacher
practise, in physics without a picture, by PPO; the rest are rounds of lessons, in which the policy
acts, the teacher says in every state what it would do, and the action expert learns that over
prefixes that were computed anyway. The reward is the task's success and nothing else; the policy
sees what a robot sees; teacher and critic are thrown away. Every draw follows from (seed,
iteration), so a run that was killed goes on with the same numbers.

Source: a privileged teacher, Learning by Cheating (arXiv 1912.12294), whose advice is asked for in
the states of the learner, DAgger (arXiv 1011.0686).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from z1_ros.errors import Diverged, TrainingError
from z1_ros.learning.core.learner import OpenPool, run_learner, start_expert
from z1_ros.learning.core.loss import flow_loss
from z1_ros.learning.core.run_config import VALIDATION_SEED
from z1_ros.learning.distill.config import TeachConfig
from z1_ros.learning.distill.dagger import Watcher, WatchJob
from z1_ros.learning.distill.ppo import TeacherUpdate
from z1_ros.learning.distill.practice import Advice, PlainTeacher, Practice, Practised
from z1_ros.learning.distill.replay import Replay
from z1_ros.learning.distill.state import TeachState
from z1_ros.learning.distill.teacher import Critic, Teacher, clone, decisions, first_noise
from z1_ros.learning.rollout.collector import Collector
from z1_ros.learning.rollout.env_pool import EnvPool, local_workers
from z1_ros.learning.rollout.env_worker import Request
from z1_ros.learning.rollout.sampler import Actor
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.networks import load_bundle_network
from z1_ros.models.bundle.task_experts import EXPERT_PARTS
from z1_ros.models.network.pi05 import draw_time
from z1_ros.specs import embodiment

REPLAY = "replay"
"""Folder of a run's lessons."""


class Teaching:
    """One run: policy, teacher, environments and where it stands."""

    update_threads = torch.get_num_threads()

    def __init__(self, config: TeachConfig, bundle: Bundle, pool: EnvPool, run: Path):
        self.config = config
        self.robot = embodiment(bundle.manifest.embodiment)
        expert = start_expert(bundle, config.task)
        self.network = load_bundle_network(bundle, expert, torch.float32)
        self.network.eval().requires_grad_(False)
        parts = [getattr(self.network, part) for part in EXPERT_PARTS]
        self.trained = [parameter for part in parts for parameter in part.parameters()]
        for parameter in self.trained:
            parameter.requires_grad_(True)
        self.pool = pool
        self.actor = Actor(self.network, bundle, self.robot, config.seed)
        self.collector = Collector(pool, self.actor, bundle.manifest.replan_steps)
        self.watcher = Watcher(pool, self.actor)
        lesson = config.lesson
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=lesson.expert_learning_rate,
            betas=(0.9, 0.95),
            weight_decay=lesson.weight_decay,
        )
        self.replay = Replay(run / REPLAY, lesson.window)
        self.identity = identity(config, bundle)
        self.state = TeachState(
            run, self.network, self.optimizer, self.identity, lesson.ema, self.replay, self.mentor
        )

    def mentor(self, inputs: int) -> TeacherUpdate:
        """Return a new teacher of truths of so many numbers, its critic and their optimiser."""
        low, high = self.actor.action_range()
        noise = first_noise(self.robot, self.config.practice.sigma)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            teacher, critic = Teacher(inputs, low, high, noise), Critic(inputs)
        return TeacherUpdate(teacher, critic, self.config.practice)

    @property
    def due(self) -> bool:
        """Whether the policy is to be measured before the next iteration."""
        state = self.state
        rounds = state.iteration - state.lessons_from if state.lessons_from else 0
        return state.iteration == 0 or (rounds > 0 and rounds % self.config.eval_every == 0)

    def check(self, figures: dict[str, Any]) -> None:
        """Nothing but a gradient says that the policy diverged."""

    def iterate(self) -> dict[str, float]:
        """Watch, practise, or teach; return the iteration's figures."""
        began, state = time.perf_counter(), self.state
        torch.set_num_threads(self.config.threads)
        if state.iteration == 0:
            figures = self.watch()
        elif not state.lessons_from:
            figures = self.practise(state.iteration)
        else:
            figures = self.teach(state.iteration)
        if not state.lessons_from and state.iteration >= self.config.practice.practice:
            state.lessons_from = state.iteration + 1
        state.iteration += 1
        took = time.perf_counter() - began
        return figures | {"env_steps": float(state.env_steps), "iteration_s": took}

    def watch(self) -> dict[str, float]:
        """Let the teacher watch the policy, and do as it does where it succeeds."""
        config = self.config
        before = self.watcher.counts.env_steps
        episodes, _ = self.watcher.run(self.jobs(0, config.clone.watch_episodes))
        self.state.env_steps += self.watcher.counts.env_steps - before
        hold = config.practice.hold
        won = [decisions(e.truths, e.actions, hold) for e in episodes if e.success]
        if not won:
            raise TrainingError(
                f"the policy never succeeded in {len(episodes)} episodes of {config.task}, so a "
                "teacher has nothing to begin from; start from a policy that sometimes does"
            )
        latest = config.practice.latest_chunk
        # One episode of ten is kept for examinations.
        self.state.exams = [s for e in episodes[::10] for s in e.starts[:latest]]
        self.state.starts = [s for i, e in enumerate(episodes) if i % 10 for s in e.starts[:latest]]
        mentor = self.state.mentor = self.mentor(won[0][0].shape[1])
        figures = clone(mentor.teacher, mentor.critic, won, self.robot, config.clone, config.seed)
        return {"train_success": len(won) / len(episodes)} | figures | self.examine()

    def practise(self, iteration: int) -> dict[str, float]:
        """Improve the teacher; now and then see whether it is good enough to teach."""
        config, mentor = self.config.practice, self.state.mentor
        rescues = round(config.rescue_share * config.scenes)
        beginnings = self.rescues(self.state.starts, rescues, iteration)
        beginnings += [{"seed": int(s)} for s in self.seeds(iteration)]
        plain = mentor.teacher.plain
        tasks = [
            Practice(
                teacher=plain,
                keys=tuple((self.config.seed, iteration, i, j) for j in range(config.tries)),
                hold=config.hold,
                **beginning,
            )
            for i, beginning in enumerate(beginnings[: config.scenes])
        ]
        practised = self.run_practice(tasks)
        seed = self.config.seed * 1_000_003 + iteration
        figures = mentor.run(practised, seed, policy=iteration > 1)
        if iteration % config.check_every == 0 or iteration == config.practice:
            figures |= self.examine()
        return figures

    def examine(self) -> dict[str, float]:
        """Measure the teacher without noise; keep the best, teach once it is good enough."""
        config, state = self.config.practice, self.state
        plain, half = state.mentor.teacher.plain, config.check_episodes // 2
        rates = {}
        for name, beginnings in (
            ("teacher_success", [{"seed": VALIDATION_SEED + i} for i in range(half)]),
            ("teacher_rescues", self.rescues(state.exams, half, 0)),
        ):
            tasks = [
                Practice(teacher=plain, keys=((0,),), hold=config.hold, noise=False, **beginning)
                for beginning in beginnings
            ]
            if tasks:  # a policy that succeeds at once leaves nothing to rescue
                rates[name] = float(np.mean([p.success[0] for p in self.run_practice(tasks)]))
        success = float(np.mean(list(rates.values())))
        state.note_teacher(success)
        if success >= config.enough:
            state.lessons_from = state.iteration + 1
        return rates

    def rescues(
        self, starts: Sequence[tuple[int, bytes]], count: int, iteration: int
    ) -> list[dict[str, Any]]:
        """Return beginnings of practice where the policy had got to; none if there are none."""
        random = np.random.default_rng([self.config.seed, iteration, 1])
        picked = random.integers(len(starts), size=count) if starts else []
        return [{"begun": starts[i][0], "start": starts[i][1]} for i in picked]

    def run_practice(self, tasks: Sequence[Practice]) -> list[Practised]:
        """Spread practice over the workers; return what came of it, in order."""
        workers, found = len(self.pool), []
        for number in range(len(tasks) + workers):
            if number >= workers and number - workers < len(tasks):
                reply = self.pool.receive(number % workers)
                assert reply.practised is not None
                found.append(reply.practised)
            if number < len(tasks):
                self.pool.send(number % workers, Request(practice=tasks[number]))
        self.state.env_steps += int(sum(p.steps.sum() for p in found))
        return found

    def teach(self, iteration: int) -> dict[str, float]:
        """Let the policy act and be advised in every state, and learn."""
        lesson, before = self.config.lesson, self.watcher.counts.env_steps
        began = time.perf_counter()
        advice = Advice(
            teacher=self.best_teacher,
            horizon=self.network.geometry.horizon,
            hold=self.config.practice.hold,
        )
        with self.state.average.in_place():
            episodes, lessons = self.watcher.run(self.jobs(iteration, lesson.episodes), advice)
        self.replay.add(iteration, lessons)
        self.state.env_steps += self.watcher.counts.env_steps - before + lessons.steps
        rolled = time.perf_counter()
        torch.set_num_threads(max(self.config.threads, self.update_threads))
        figures = self.learn(iteration)
        return figures | {
            "train_success": float(np.mean([episode.success for episode in episodes])),
            "lessons": float(len(self.replay)),
            "rollout_s": rolled - began,
            "update_s": time.perf_counter() - rolled,
        }

    @property
    def best_teacher(self) -> PlainTeacher:
        """The one that did best when it was examined."""
        return PlainTeacher({n: t.numpy() for n, t in self.state.best_teacher.items()})

    def learn(self, iteration: int) -> dict[str, float]:
        """Train the expert on lessons of the window.

        Raises:
            Diverged: A gradient is not finite.
        """
        lesson, dims = self.config.lesson, self.actor.real_dims
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + iteration)
        done = (iteration - self.state.lessons_from) * lesson.steps
        losses, norms = [], []
        for step in range(lesson.steps):
            prefix, chunks, valid = self.replay.draw(lesson.lesson_batch_size, random)
            count = len(chunks) * lesson.draws
            noise = torch.randn(count, *chunks.shape[1:], generator=random)
            moment = draw_time((count,), random)
            loss = flow_loss(self.network, prefix, chunks, valid, noise, moment, dims=dims)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.trained, lesson.clip_norm).item()
            if not math.isfinite(norm):
                raise Diverged("its gradient is not finite")
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.state.average.update(done + step + 1)
            losses.append(loss.item())
            norms.append(norm)
        return {"flow_loss": float(np.mean(losses)), "grad_norm": float(np.mean(norms))}

    def seeds(self, iteration: int) -> np.ndarray:
        """Return the scenes of training, in an iteration's order."""
        return np.random.default_rng([self.config.seed, iteration]).permutation(VALIDATION_SEED)

    def jobs(self, iteration: int, count: int) -> list[WatchJob]:
        """Return an iteration's episodes of the policy."""
        seeds = self.seeds(iteration)
        return [WatchJob((iteration, i), int(seeds[i % len(seeds)])) for i in range(count)]


def identity(config: TeachConfig, bundle: Bundle) -> dict[str, Any]:
    """Return everything that shapes the numbers of a run."""
    return {
        "bundle": bundle.sha256,
        "task": config.task,
        "clone": asdict(config.clone),
        "practice": asdict(config.practice),
        "lesson": asdict(config.lesson),
        "workers": config.workers,
        "threads": config.threads,
        "eval": [config.eval_every, config.eval_episodes],
        "seed": config.seed,
    }


def main(config: TeachConfig, open_pool: OpenPool = local_workers) -> dict[str, Any]:
    """Train and write the bundle; returns the final figures.

    Args:
        config: What to train.
        open_pool: Where its environments are; they must tell the simulator's truth.
    """
    return run_learner("z1-teach", config, Teaching, open_pool, frozen_vlm=True)
