"""``z1-train``: Z-1's reinforcement learning of a policy bundle, task by task.

One iteration: roll out groups of episodes that share a scene and a prefix, turn successes into
advantages, update the expert a little, now and then measure the policy as it would be deployed.
Every draw follows from (seed, iteration), so a run that was killed goes on with the same numbers.
"""

import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console

from z1_ros.errors import Diverged
from z1_ros.files import write_json
from z1_ros.models.bundle_network import load_bundle_network
from z1_ros.models.manifest import Bundle, load_bundle
from z1_ros.models.pi05 import Pi05
from z1_ros.models.task_experts import EXPERT_PARTS
from z1_ros.rl.actor import Actor
from z1_ros.rl.collect import WHOLE_EPISODE, Collector, Group, GroupJob
from z1_ros.rl.grpo import Update, make_batch, score
from z1_ros.rl.grpo_config import VALIDATION_SEED, GrpoConfig, Z1Config
from z1_ros.rl.lanes import KitchenMaker, LanePool, local_lanes
from z1_ros.rl.lora import add_adapters, plain_weights
from z1_ros.rl.memory import Memory
from z1_ros.rl.plan import plan_group, prefix_at
from z1_ros.rl.result import write_result
from z1_ros.rl.run_log import run_folder
from z1_ros.rl.train_state import LOG, TENSORBOARD, TrainState
from z1_ros.sim.evaluate import wilson_interval
from z1_ros.sim.kitchen import TASKS
from z1_ros.sim.task_names import parse_task
from z1_ros.specs import check_contract, embodiment

PREFIX = "prefix"
"""Graph of the VLM."""


class Training:
    """One run: weights, environments and where it stands."""

    def __init__(self, config: Z1Config, bundle: Bundle, pool: LanePool, run: Path):
        self.config = config
        self.bundle = bundle
        manifest = bundle.manifest
        robot = embodiment(manifest.embodiment)
        self.network = load_bundle_network(bundle, start_expert(bundle, config.task), torch.float32)
        self.network.eval()
        self.sde = config.sde(manifest.denoise_steps)
        self.actor = Actor(self.network, bundle, robot, config.seed)
        self.collector = Collector(
            pool, self.actor, manifest.replan_steps, max_chunks=config.max_chunks
        )
        joint = config.grpo.trained != "expert"
        self.memory = Memory(self.network, joint=joint, limit_gb=config.grpo.prefix_gb)
        self.optimizer = make_optimizer(self.network, config.grpo, config.seed)
        self.update = Update(
            self.network, self.optimizer, config.grpo, self.sde, self.memory.prefix_of
        )
        self.identity = identity(config, bundle)
        self.state = TrainState(run, self.network, self.optimizer, self.identity, config.ema)

    def iterate(self) -> dict[str, float]:
        """Roll out, learn, and return the iteration's figures."""
        grpo, iteration = self.config.grpo, self.state.iteration
        began, before = time.perf_counter(), self.collector.counts.env_steps
        self.memory.clear()
        torch.set_num_threads(self.config.threads)
        groups = self.roll_out(iteration)
        rolled = time.perf_counter()
        torch.set_num_threads(max(self.config.threads, self.update_threads))
        scored = [score(group, grpo) for group in groups]
        batch = make_batch(scored, self.sde, self.actor.real_dims)
        steps = self.collector.counts.env_steps - before
        self.state.env_steps += steps
        figures = {
            "train_success": float(np.mean([g.success.mean() for g in groups])),
            "kept_groups": float(np.mean([s.kept for s in scored])),
            "chunks_to_success": mean_chunks(groups),
            "env_steps": float(self.state.env_steps),
            "env_steps_per_s": steps / (rolled - began),
            "rollout_s": rolled - began,
        }
        if batch is not None:
            set_learning_rates(self.optimizer, grpo, iteration)
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + iteration)
            figures |= self.update.run(batch, generator)
        self.state.iteration += 1
        self.state.average.update(self.state.iteration)
        return figures | {"update_s": time.perf_counter() - rolled}

    update_threads = torch.get_num_threads()

    def roll_out(self, iteration: int) -> list[Group]:
        """Return an iteration's groups; with ``resample``, others in the place of useless ones."""
        grpo = self.config.grpo
        prefix = prefix_at(iteration, grpo.prefix, grpo.last_prefix, grpo.prefix_iterations)
        plan = plan_group(grpo.group_size, grpo.sharing, prefix)
        seeds = np.random.default_rng([self.config.seed, iteration]).permutation(VALIDATION_SEED)
        groups: list[Group] = []
        wanted, at = grpo.groups, 0
        rounds = 1 + (grpo.max_resample if grpo.filter_by == "resample" else 0)
        for _ in range(rounds):
            jobs = [
                GroupJob((iteration, at + i), plan, int(seeds[(at + i) % VALIDATION_SEED]))
                for i in range(wanted)
            ]
            groups += self.collector.run(jobs, self.sde, self.memory)
            at += wanted
            wanted = grpo.groups - sum(score(group, grpo).kept for group in groups)
            if wanted <= 0:
                break
        return groups

    @property
    def due(self) -> bool:
        """Whether the policy is to be measured before the next iteration."""
        return self.state.iteration % self.config.eval_every == 0

    def check(self, figures: dict[str, Any]) -> None:
        """Raise Diverged if an update moved the policy further than it may."""
        for kl in (figures.get("kl", 0.0), figures.get("kl_update", 0.0)):
            if not kl <= self.config.grpo.max_kl:
                raise Diverged(f"an update moved it by KL {kl:.3g}")


class Learner(Protocol):
    """What trains: ``Training`` by GRPO, ``z1_ros.rl.teach`` through a teacher."""

    config: Any
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


Lanes = Callable[[KitchenMaker, int, int], LanePool]
"""Opens lanes: how to make their environment, how many, bytes of the images of an observation."""


def main(config: Z1Config, open_lanes: Lanes = local_lanes) -> dict[str, Any]:
    """Train and write the bundle; returns the final figures.

    Args:
        config: What to train.
        open_lanes: Where its environments are.
    """
    frozen = config.grpo.trained == "expert"
    return run_learner("z1-train", config, Training, open_lanes, frozen_vlm=frozen)


def run_learner(
    command: str, config: Any, make: Callable[..., Learner], open_lanes: Lanes, *, frozen_vlm: bool
) -> dict[str, Any]:
    """Train and write the bundle; returns the final figures.

    Args:
        command: What the user called.
        config: What to train.
        make: Makes the learner of configuration, bundle, lanes and the run's folder.
        open_lanes: Where its environments are.
        frozen_vlm: The VLM's graph is the start's own, to the bit.
    """
    bundle = load_bundle(config.bundle)
    manifest = bundle.manifest
    check_contract(manifest.contract, embodiment(manifest.embodiment), manifest.name)
    config = replace(config, task=parse_task(config.task, TASKS))
    run = run_folder(config.run, config.out)
    maker = KitchenMaker(task=config.task, embodiment=manifest.embodiment)
    diverged: Diverged | None = None
    with open_lanes(maker, config.lanes, maker.image_bytes) as pool, ExitStack() as stack:
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


def make_optimizer(network: Pi05, config: GrpoConfig, seed: int) -> torch.optim.AdamW:
    """Freeze what is not trained, add adapters if wanted; return an optimiser of the rest."""
    network.requires_grad_(config.trained == "joint")
    if config.trained == "lora":
        add_adapters(
            network,
            ("vlm", "vision"),
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            seed=seed,
        )
    expert = [p for part in EXPERT_PARTS for p in getattr(network, part).parameters()]
    for parameter in expert:
        parameter.requires_grad_(True)
    groups: list[dict[str, Any]] = [{"params": expert, "lr": config.learning_rate}]
    known = {id(parameter) for parameter in expert}
    vlm = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    if vlm:
        groups.append({"params": vlm, "lr": config.vlm_learning_rate})
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=config.weight_decay)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, config: GrpoConfig, iteration: int
) -> None:
    """Set an iteration's learning rates: the expert's, and the VLM's if it is trained."""
    share = min(1.0, (iteration + 1) / max(1, config.warmup_iterations))
    rates = (config.learning_rate, config.vlm_learning_rate)
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate * share


def mean_chunks(groups: list[Group]) -> float:
    """Return the mean number of chunks of the rollouts that succeeded; nan if none did."""
    lengths = np.concatenate([group.lengths[group.success] for group in groups])
    return float(lengths.mean()) if len(lengths) else math.nan


def start_expert(bundle: Bundle, task: str) -> str:
    """Return the task-wise expert of a bundle that training a task begins from, "" for its own."""
    return task if task in bundle.manifest.experts else ""


def identity(config: Z1Config, bundle: Bundle) -> dict[str, Any]:
    """Return everything that shapes the numbers of a run."""
    return {
        "bundle": bundle.sha256,
        "task": config.task,
        "grpo": asdict(config.grpo),
        "sde": asdict(config.sde(bundle.manifest.denoise_steps)),
        "lanes": config.lanes,
        "threads": config.threads,
        "max_chunks": config.max_chunks,
        "eval": [config.eval_every, config.eval_episodes],
        "ema": config.ema,
        "seed": config.seed,
    }


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
