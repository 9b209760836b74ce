"""Privileged distillation of a policy bundle on one task: the loop of ``z1-teach``.

A teacher that reads simulator state learns faster from success than the policy, which sees little.
Iterations have one of three kinds, in this order:

1. First iteration: collect episodes of the policy; the teacher imitates the successful ones.
2. Teacher training: the teacher improves by PPO, in physics without rendering, until its success
   reaches the target.
3. DAgger rounds: the policy acts, the teacher labels every state that the policy reaches, and the
   action expert learns these labels from the prefix features that the rollouts computed.

The task's success is the only reward. The policy sees only what a robot sees. Teacher and critic
are discarded at the end. All random numbers depend only on (seed, iteration), so a resumed run
gives the same results.

Source: Learning by Cheating (arXiv 1912.12294); labels in the learner's own states, DAgger
(arXiv 1011.0686).
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from z1_ros.errors import TrainingError
from z1_ros.learning.core.loss import draw_flow, flow_loss, take_step
from z1_ros.learning.core.run import TrainingRun
from z1_ros.learning.core.run_config import VALIDATION_SEED
from z1_ros.learning.distill.config import DistillConfig
from z1_ros.learning.distill.dagger import DaggerDataset, record_episodes, relabel_episodes
from z1_ros.learning.distill.numpy_teacher import (
    NumpyTeacher,
    Relabel,
    TeacherRequest,
    TeacherRollouts,
)
from z1_ros.learning.distill.ppo import TeacherUpdate
from z1_ros.learning.distill.state import DistillState
from z1_ros.learning.distill.teacher import Critic, Teacher, clone, first_noise, held_actions
from z1_ros.learning.distill.worker import PrivilegedWorker
from z1_ros.learning.rollout.collector import episode_jobs
from z1_ros.learning.rollout.env_pool import EnvPool, OpenPool, local_workers
from z1_ros.learning.rollout.env_worker import Begin
from z1_ros.learning.rollout.session import Training, evaluate, train_bundle
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.task_experts import EXPERT_PARTS

SAMPLES = "dagger"
"""Name of the folder with a run's relabelled samples."""
Start = tuple[int, Begin]
"""Start of a teacher's rollouts: the number of control steps so far, and a scene or a snapshot."""


class Distillation(Training):
    """One run: policy, teacher, environments and progress."""

    def __init__(self, config: DistillConfig, bundle: Bundle, pool: EnvPool, folder: Path):
        """Load the policy; this does not train, and does not read or write the folder.

        The workers of ``pool`` must be privileged.
        """
        super().__init__(config, bundle, pool)
        self.config, self.pool = config, pool
        self.network.requires_grad_(False)
        parts = [getattr(self.network, part).requires_grad_(True) for part in EXPERT_PARTS]
        self.trained = [parameter for part in parts for parameter in part.parameters()]
        dagger = config.dagger
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=dagger.expert_learning_rate,
            betas=(0.9, 0.95),
            weight_decay=dagger.weight_decay,
        )
        dataset = DaggerDataset(folder / SAMPLES, dagger.dagger_window)
        self.state = DistillState(dataset, self.new_teacher)
        self.run = TrainingRun(
            folder,
            config,
            self.network,
            self.optimizer,
            fingerprint(config, bundle),
            average_decay=dagger.ema,
            extra=self.state,
        )

    def new_teacher(self, inputs: int) -> TeacherUpdate:
        """Return a new teacher and critic for privileged states of dimension ``inputs``."""
        low, high = self.sampler.action_range()
        noise = first_noise(self.robot, self.config.teacher.sigma)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            teacher, critic = Teacher(inputs, low, high, noise), Critic(inputs)
        return TeacherUpdate(teacher, critic, self.config.teacher)

    def train(self) -> None:
        """Iterate until a budget is used up; raises Diverged, the best weights are then kept."""
        while not self.run.finished:
            with self.run.one_iteration() as metrics:
                if self.evaluation_due(self.run.counters.iteration):
                    metrics |= evaluate(self.run, self.collector, self.sampler)
                metrics |= self.iterate(self.run.counters.iteration)

    def evaluation_due(self, iteration: int) -> bool:
        """Return whether to evaluate the policy before an iteration."""
        rounds = iteration - self.state.dagger_from if self.state.dagger_from else 0
        return iteration == 0 or (rounds > 0 and rounds % self.config.eval_every == 0)

    def iterate(self, iteration: int) -> dict[str, float]:
        """Run the step of an iteration (imitation, PPO or DAgger); return its metrics."""
        began, state = time.perf_counter(), self.state
        torch.set_num_threads(1)
        if iteration == 0:
            metrics = self.clone_policy()
        elif not state.dagger_from:
            metrics = self.train_teacher(iteration)
        else:
            metrics = self.dagger_round(iteration)
        if not state.dagger_from and iteration >= self.config.teacher.teacher_iterations:
            state.dagger_from = iteration + 1
        return metrics | {"iteration_s": time.perf_counter() - began}

    # 1. The teacher imitates successful episodes

    def clone_policy(self) -> dict[str, float]:
        """Collect episodes of the policy; train a new teacher to imitate the successful ones."""
        config, counts = self.config, self.collector.counts
        before = counts.env_steps
        jobs = episode_jobs(0, config.scenes(0, config.clone.clone_episodes))
        episodes = record_episodes(self.collector, self.sampler, jobs)
        self.run.counters.env_steps += counts.env_steps - before
        hold_steps = config.teacher.hold_steps
        won = [
            (np.stack(e.privileged), held_actions(e.actions, hold_steps))
            for e in episodes
            if e.success
        ]
        if not won:
            raise TrainingError(
                f"the policy never succeeded in {len(episodes)} episodes of {config.task}, so a "
                "teacher has nothing to begin from; start from a policy that sometimes does"
            )
        latest = config.teacher.recovery_chunks
        # One in ten episodes is reserved for the teacher's evaluations.
        held_out, others = episodes[::10], [e for i, e in enumerate(episodes) if i % 10]
        self.state.eval_starts = [s for e in held_out for s in e.starts[:latest]]
        self.state.train_starts = [s for e in others for s in e.starts[:latest]]
        made = self.state.teacher = self.new_teacher(won[0][0].shape[1])
        metrics = clone(made.teacher, made.critic, won, self.robot, config.clone, config.seed)
        return {"train_success": len(won) / len(episodes)} | metrics | self.evaluate_teacher(0)

    # 2. The teacher improves

    def train_teacher(self, iteration: int) -> dict[str, float]:
        """Improve the teacher on its own rollouts; evaluate it at regular intervals."""
        config, made = self.config.teacher, self.state.teacher
        assert made is not None
        recoveries = round(config.recovery_share * config.teacher_starts)
        starts = self.recoveries(self.state.train_starts, recoveries, iteration)
        starts += [(0, seed) for seed in self.config.scenes(iteration, config.teacher_starts)]
        ask = partial(TeacherRequest, teacher=made.teacher.to_numpy, hold_steps=config.hold_steps)
        requests = []
        for i, (steps, begin) in enumerate(starts[: config.teacher_starts]):
            keys = [(self.config.seed, iteration, i, j) for j in range(config.teacher_rollouts)]
            requests.append(ask(keys=tuple(keys), steps_before=steps, begin=begin))
        rollouts = self.roll_out_teacher(requests)
        metrics = made.run(rollouts, self.config.batch_seed(iteration), policy=iteration > 1)
        if iteration % config.teacher_eval_every == 0 or iteration == config.teacher_iterations:
            metrics |= self.evaluate_teacher(iteration)
        return metrics

    def evaluate_teacher(self, iteration: int) -> dict[str, float]:
        """Evaluate the teacher, keep it if it is the best so far; at the target, DAgger begins."""
        config, state = self.config.teacher, self.state
        assert state.teacher is not None
        half = config.teacher_eval_episodes // 2
        teacher = state.teacher.teacher.to_numpy
        hold_steps = config.hold_steps
        ask = partial(
            TeacherRequest, teacher=teacher, keys=((0,),), hold_steps=hold_steps, noise=False
        )
        beginnings: dict[str, list[Start]] = {
            "teacher_success": [(0, VALIDATION_SEED + i) for i in range(half)],
            "teacher_recovery_success": self.recoveries(state.eval_starts, half, 0),
        }
        rates = {}
        for name, starts in beginnings.items():
            if starts:  # empty if every held-out episode ends in its first chunk
                requests = [ask(steps_before=steps, begin=begin) for steps, begin in starts]
                rollouts = self.roll_out_teacher(requests)
                rates[name] = float(np.mean([r.success[0] for r in rollouts]))
        success = float(np.mean(list(rates.values())))
        state.note_teacher(success)
        if success >= config.teacher_target:
            state.dagger_from = iteration + 1
        return rates

    def recoveries(self, starts: Sequence[Start], count: int, iteration: int) -> list[Start]:
        """Return ``count`` randomly drawn starts; empty if there are no starts."""
        random = np.random.default_rng([self.config.seed, iteration, 1])
        return [starts[i] for i in random.integers(len(starts), size=count)] if starts else []

    def roll_out_teacher(self, requests: Sequence[TeacherRequest]) -> list[TeacherRollouts]:
        """Run a teacher's rollouts on the workers; return them in the order of requests."""
        rollouts = [r for r in self.pool.map(requests) if isinstance(r, TeacherRollouts)]
        self.run.counters.env_steps += int(sum(r.steps.sum() for r in rollouts))
        return rollouts

    # 3. The policy learns from the teacher

    def dagger_round(self, iteration: int) -> dict[str, float]:
        """Run the policy, relabel every state that it reaches, and train the action expert."""
        dagger, counts = self.config.dagger, self.collector.counts
        began, before = time.perf_counter(), counts.env_steps
        horizon, hold_steps = self.network.geometry.horizon, self.config.teacher.hold_steps
        wanted = Relabel(teacher=self.best_teacher, horizon=horizon, hold_steps=hold_steps)
        jobs = episode_jobs(iteration, self.config.scenes(iteration, dagger.dagger_episodes))
        with self.run.average.in_place():
            groups, samples = relabel_episodes(self.collector, self.sampler, jobs, wanted)
        self.state.dataset.add(iteration, samples)
        label_steps = int(sum(executed.sum() for *_, executed in samples))
        self.run.counters.env_steps += counts.env_steps - before + label_steps
        rolled = time.perf_counter()
        torch.set_num_threads(self.update_threads)
        metrics = self.learn(iteration)
        return metrics | {
            "train_success": float(np.mean([group.success[0] for group in groups])),
            "dagger_samples": float(len(self.state.dataset)),
            "rollout_s": rolled - began,
            "update_s": time.perf_counter() - rolled,
        }

    @property
    def best_teacher(self) -> NumpyTeacher:
        """The teacher with the best evaluation so far."""
        return NumpyTeacher({n: t.numpy() for n, t in self.state.best_teacher.items()})

    def learn(self, iteration: int) -> dict[str, float]:
        """Train the action expert on the samples of the last rounds."""
        dagger, dims = self.config.dagger, self.sampler.real_dims
        random = torch.Generator().manual_seed(self.config.batch_seed(iteration))
        done = (iteration - self.state.dagger_from) * dagger.dagger_steps
        losses, norms = [], []
        for step in range(dagger.dagger_steps):
            prefix, chunks, valid = self.state.dataset.draw(dagger.dagger_batch_size, random)
            drawn = draw_flow(chunks, dagger.draws, random)
            loss = flow_loss(self.network, prefix, chunks, valid, *drawn, dims=dims)
            loss.backward()
            norms.append(take_step(self.optimizer, self.trained, dagger.clip_norm))
            self.run.average.update(done + step + 1)
            losses.append(loss.item())
        return {"flow_loss": float(np.mean(losses)), "grad_norm": float(np.mean(norms))}


def fingerprint(config: DistillConfig, bundle: Bundle) -> dict[str, Any]:
    """Return all settings that influence the results of a run."""
    return {
        "method": "privileged distillation",
        "bundle": bundle.sha256,
        "robot": config.robot,
        "task": config.task,
        "clone": asdict(config.clone),
        "teacher": asdict(config.teacher),
        "dagger": asdict(config.dagger),
        "workers": config.workers,
        "eval": [config.eval_every, config.eval_episodes],
        "seed": config.seed,
    }


open_privileged = partial(local_workers, kind=PrivilegedWorker)
"""Function that opens a pool of processes on this machine whose workers read privileged state."""


def main(config: DistillConfig, open_pool: OpenPool = open_privileged) -> dict[str, Any]:
    """Train, write the bundle and return the final metrics; see ``train_bundle``.

    The workers that ``open_pool`` opens must be privileged.
    """
    return train_bundle("z1-teach", config, Distillation, open_pool, frozen_vlm=True)
