"""Steps that all reinforcement-learning runs share: load, train, evaluate and write a bundle."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from z1_ros.errors import Diverged
from z1_ros.learning.core.run import TrainingRun, open_tensorboard, start_expert
from z1_ros.learning.core.run_config import VALIDATION_SEED, RunConfig
from z1_ros.learning.core.run_log import run_folder
from z1_ros.learning.rollout.collector import Collector, Group, episode_jobs, following
from z1_ros.learning.rollout.env_pool import EnvPool, OpenPool
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.bundle.manifest import Bundle, load_bundle
from z1_ros.models.bundle.networks import load_bundle_network
from z1_ros.runtime.lock import locked
from z1_ros.sim.evaluation import success_summary
from z1_ros.sim.registry import EnvMaker
from z1_ros.specs import check_contract, embodiment


class Training(ABC):
    """A training method: GRPO (``learning/grpo``) or distillation (``learning/distill``)."""

    run: TrainingRun
    update_threads = torch.get_num_threads()

    def __init__(self, config: RunConfig, bundle: Bundle, pool: EnvPool):
        """Load the policy, its float32 weights and what it needs to act in the environments."""
        self.robot = embodiment(bundle.manifest.embodiment)
        expert = start_expert(bundle, config.task)
        self.network = load_bundle_network(bundle, expert, torch.float32).eval()
        self.sampler = Sampler(self.network, bundle, self.robot, config.seed)
        self.collector = Collector(pool)

    @abstractmethod
    def train(self) -> None:
        """Iterate until a budget is used up; raises Diverged, the best weights are then kept."""


def train_bundle(
    command: str,
    config: RunConfig,
    make: Callable[[Any, Bundle, EnvPool, Path], Training],
    open_pool: OpenPool,
    *,
    frozen_vlm: bool,
) -> dict[str, Any]:
    """Train a policy by the method that ``make`` makes, write the bundle; return final metrics.

    Raises Diverged if training made the policy useless; the bundle then has the best weights. The
    graph of a frozen VLM is copied from the initial bundle.
    """
    config = replace(config, task=config.task.strip())
    start = load_bundle(config.bundle)
    robot = start.manifest.embodiment
    check_contract(start.manifest.contract, embodiment(robot), start.manifest.name)
    maker = EnvMaker(simulator=config.robot, task=config.task, embodiment=robot)
    folder = run_folder(config.out)
    with locked(folder):
        with ExitStack() as stack:
            pool = stack.enter_context(open_pool(maker, config.workers))
            training = make(config, start, pool, folder)
            run = training.run
            run.start(command, start.manifest.name)
            run.log.board = open_tensorboard(folder, stack)
            diverged = _train(training)
        return run.finish(command, start, diverged, frozen_vlm=frozen_vlm)


def _train(training: Training) -> Diverged | None:
    """Train and evaluate the policy; return the error if it diverged and there are best weights."""
    run = training.run
    try:
        training.train()
        if run.config.keep == "last":
            run.forget_best()
        evaluate_last(run, training.collector, training.sampler)
    except Diverged as error:
        if not run.best_path.exists():
            raise
        return error
    return None


def evaluate(run: TrainingRun, collector: Collector, sampler: Sampler) -> dict[str, Any]:
    """Evaluate the policy, keep its weights if they are the best so far, and return metrics.

    If the run averages the weights, the averaged weights are evaluated and kept.
    """
    began, count = time.perf_counter(), run.config.eval_episodes
    torch.set_num_threads(1)
    jobs = episode_jobs(0, range(VALIDATION_SEED, VALIDATION_SEED + count))
    with run.average.in_place():
        groups = collector.run(jobs, following(sampler))
        summary = success_summary([bool(group.success[0]) for group in groups])
        rate = summary["success"] / summary["n"]
        run.note_success(rate)
    return {
        "eval_success": rate,
        "eval_n": summary["n"],
        "eval_ci95": summary["ci95"],
        "eval_chunks_to_success": mean_chunks(groups),
        "eval_s": time.perf_counter() - began,
    }


def evaluate_last(run: TrainingRun, collector: Collector, sampler: Sampler) -> dict[str, Any]:
    """Evaluate the policy at the end of training, and log the metrics."""
    metrics = {"iteration": run.counters.iteration} | evaluate(run, collector, sampler)
    run.write(metrics)
    return metrics


def mean_chunks(groups: Sequence[Group]) -> float:
    """Return the mean number of chunks of the rollouts that succeeded; nan if none did."""
    lengths = np.concatenate([group.lengths[group.success] for group in groups])
    return float(lengths.mean()) if len(lengths) else math.nan
