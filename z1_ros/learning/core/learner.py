"""What runs of reinforcement learning have in common, whatever they learn by.

A learner iterates; here it is measured now and then, saved, resumed, and its result is written.
"""

import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console

from z1_ros.errors import Diverged
from z1_ros.files import write_json
from z1_ros.learning.core.lora import plain_weights
from z1_ros.learning.core.run_config import VALIDATION_SEED, RunConfig
from z1_ros.learning.core.run_log import run_folder
from z1_ros.learning.core.train_state import LOG, TENSORBOARD, TrainState
from z1_ros.learning.rollout.collector import WHOLE_EPISODE, Collector, Group, GroupJob
from z1_ros.learning.rollout.env_pool import EnvPool
from z1_ros.models.bundle.manifest import Bundle, load_bundle
from z1_ros.models.bundle.result import write_result
from z1_ros.models.network.pi05 import Pi05
from z1_ros.sim.evaluation import wilson_interval
from z1_ros.sim.registry import EnvMaker
from z1_ros.specs import check_contract, embodiment

PREFIX = "prefix"
"""Graph of the VLM."""

OpenPool = Callable[[EnvMaker, int], EnvPool]
"""Opens workers: how to make their environment, and how many."""


class Learner(Protocol):
    """What trains: ``Training`` by GRPO, ``z1_ros.learning.distill.train`` through a teacher."""

    config: RunConfig
    """Its settings; of those, budgets, evaluation and files are used here."""
    network: Pi05
    """What is trained."""
    collector: Collector
    """Runs the policy to measure it."""
    state: TrainState
    """Where it stands."""
    identity: dict[str, Any]
    """Everything that shapes the numbers of a run."""

    @property
    def due(self) -> bool:
        """Whether the policy is to be measured before the next iteration."""
        ...

    def iterate(self) -> dict[str, float]:
        """Act, learn, and return the iteration's figures."""
        ...

    def check(self, figures: dict[str, Any]) -> None:
        """Raise Diverged if an iteration's figures say so."""
        ...


def run_learner(
    command: str,
    config: RunConfig,
    make: Callable[..., Learner],
    open_pool: OpenPool,
    *,
    frozen_vlm: bool,
) -> dict[str, Any]:
    """Train and write the bundle; returns the final figures.

    Args:
        command: What the user called.
        config: What to train.
        make: Makes the learner of configuration, bundle, workers and the run's folder.
        open_pool: Where its environments are.
        frozen_vlm: The VLM's graph is the start's own, to the bit.
    """
    bundle = load_bundle(config.bundle)
    manifest = bundle.manifest
    check_contract(manifest.contract, embodiment(manifest.embodiment), manifest.name)
    config = replace(config, task=config.task.strip())
    run = run_folder(config.run, config.out)
    maker = EnvMaker(simulator=config.robot, task=config.task, embodiment=manifest.embodiment)
    diverged: Diverged | None = None
    with open_pool(maker, config.workers) as pool, ExitStack() as stack:
        training = make(config, bundle, pool, run)
        if not (config.resume and training.state.resume()):
            training.state.begin()
        board = tensorboard(run, stack)
        try:
            train(training, lambda record: report(record, run, board))
            if config.keep == "last":
                training.state.forget_best()
            report(measure(training), run, board)
        except Diverged as error:
            if not training.state.best_path.exists():
                raise
            diverged = error
        training.state.load_best()
    figures = training.state.facts
    kept = config.export and frozen_vlm and f"{PREFIX}.onnx" in manifest.files
    graphs = [PREFIX] if kept else []
    origin = made_by(command, figures | training.identity, bundle)
    weights = plain_weights(training.network)
    write_result(bundle, weights, config.out, origin, graphs, export=config.export)
    if config.json:
        write_json(config.json, figures | {"task": config.task})
    if diverged:
        raise Diverged(
            f"{diverged}. The best weights, success {figures['best_success']:.2f} at iteration "
            f"{figures['best_iteration']}, are written to {config.out}; try a lower learning_rate"
        )
    return figures | {"task": config.task}


def train(training: Learner, log: Callable[[dict[str, Any]], None]) -> None:
    """Iterate until a budget is used up.

    Args:
        training: What to train; its checkpoint is never of a policy that diverged.
        log: Takes each iteration's figures, before the checkpoint that counts it as done.

    Raises:
        Diverged: An update made the policy useless; the best weights are kept.
    """
    config, state = training.config, training.state
    while not state.finished(config.minutes, config.iterations, config.env_steps):
        began, number = time.perf_counter(), state.iteration
        figures: dict[str, Any] = {"iteration": number}
        try:
            if training.due:
                figures |= evaluate(training)
            figures |= training.iterate()
        except Diverged as error:
            raise Diverged(f"the policy diverged at iteration {number}: {error}") from error
        state.elapsed_s += time.perf_counter() - began
        log(figures | {"elapsed_s": state.elapsed_s})
        try:
            training.check(figures)
        except Diverged as error:
            raise Diverged(f"the policy diverged at iteration {number}: {error}") from error
        state.save()


def evaluate(learner: Learner) -> dict[str, Any]:
    """Measure the policy as it is deployed, without noise, on scenes not trained on.

    If it is the best so far, its weights are kept. With ``ema`` it is the average that counts.
    """
    began, config, state = time.perf_counter(), learner.config, learner.state
    torch.set_num_threads(config.threads)
    jobs = [
        GroupJob((0, i), WHOLE_EPISODE, VALIDATION_SEED + i) for i in range(config.eval_episodes)
    ]
    with state.average.in_place():
        groups = learner.collector.run(jobs, None)
        success, n = sum(bool(group.success[0]) for group in groups), len(groups)
        state.note_success(success / n)
    return {
        "eval_success": success / n,
        "eval_n": n,
        "eval_ci95": list(wilson_interval(success, n)),
        "eval_chunks_to_success": mean_chunks(groups),
        "eval_s": time.perf_counter() - began,
    }


def measure(learner: Learner) -> dict[str, Any]:
    """Return the figures of a policy that is not trained further."""
    facts = learner.state.facts
    spent = {name: facts[name] for name in ("iteration", "env_steps", "elapsed_s")}
    return spent | evaluate(learner)


def made_by(command: str, facts: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Return what the new bundle's manifest says of its making, the run's ``facts`` among it."""
    return {
        "command": shlex.join([command, *sys.argv[1:]]),
        "init": {
            "name": bundle.manifest.name,
            "sha256": bundle.sha256,
            "expert": start_expert(bundle, facts["task"]),
        },
        "z1": facts,
        "versions": {name: version(name) for name in ("torch", "numpy", "mujoco", "transformers")}
        | {"python": platform.python_version()},
    }


def start_expert(bundle: Bundle, task: str) -> str:
    """Return the task-wise expert of a bundle that training a task begins from, "" for its own."""
    return task if task in bundle.manifest.experts else ""


def mean_chunks(groups: list[Group]) -> float:
    """Return the mean number of chunks of the rollouts that succeeded; nan if none did."""
    lengths = np.concatenate([group.lengths[group.success] for group in groups])
    return float(lengths.mean()) if len(lengths) else math.nan


def tensorboard(run: Path, stack: ExitStack) -> Any:
    """Return a TensorBoard writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return stack.enter_context(SummaryWriter(str(run / TENSORBOARD)))


def report(record: dict[str, Any], run: Path, board: Any) -> None:
    """Log an iteration's figures, those that are numbers, and show its essentials."""
    record = {k: v for k, v in record.items() if isinstance(v, list) or math.isfinite(v)}
    if board is not None:
        for name, value in record.items():
            if not isinstance(value, list):
                board.add_scalar(name, value, record["iteration"])
    with (run / LOG).open("a+b") as log:
        # A killed process may have left a line without its end.
        torn = log.tell() and not (run / LOG).read_bytes().endswith(b"\n")
        log.write(b"\n" * bool(torn) + json.dumps(record).encode() + b"\n")
    shown = (
        "iteration",
        "eval_success",
        "train_success",
        "teacher_success",
        "teacher_rescues",
        "practice_success",
        "kept_groups",
        "chunks_to_success",
        "clipped",
        "kl",
        "kl_update",
        "grad_norm",
        "log_prob_mismatch",
        "flow_loss",
        "lessons",
        "rollout_s",
        "update_s",
        "elapsed_s",
    )
    Console().print("  ".join(f"{k} {record[k]:.4g}" for k in shown if k in record))
