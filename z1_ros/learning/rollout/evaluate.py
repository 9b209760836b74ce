"""Evaluation during training: the policy acts as deployed, in scenes that are not trained on."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from z1_ros.learning.core.run import TrainingRun
from z1_ros.learning.core.run_config import VALIDATION_SEED
from z1_ros.learning.rollout.collector import Collector, Group, episode_jobs, following
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.sim.evaluation import success_summary


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
