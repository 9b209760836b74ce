"""``z1-train``: Z-1's reinforcement learning of a policy bundle, task by task.

One iteration: roll out groups of episodes that share a scene and a prefix, turn successes into
advantages, update the expert a little, now and then measure the policy as it would be deployed.
The loop around it, with its files, is ``z1_ros.learning.core.learner``. Every draw follows from
(seed, iteration), so a run that was killed goes on with the same numbers.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from z1_ros.errors import Diverged
from z1_ros.learning.core.learner import OpenPool, mean_chunks, run_learner, start_expert
from z1_ros.learning.core.lora import add_adapters
from z1_ros.learning.core.memory import Memory
from z1_ros.learning.core.run_config import VALIDATION_SEED
from z1_ros.learning.core.train_state import TrainState
from z1_ros.learning.grpo.config import GrpoConfig, Z1Config
from z1_ros.learning.grpo.update import Update, make_batch, score
from z1_ros.learning.rollout.collector import Collector, Group, GroupJob
from z1_ros.learning.rollout.env_pool import EnvPool, local_workers
from z1_ros.learning.rollout.plan import plan_group, prefix_at
from z1_ros.learning.rollout.sampler import Actor
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.networks import load_bundle_network
from z1_ros.models.bundle.task_experts import EXPERT_PARTS
from z1_ros.models.network.pi05 import Pi05
from z1_ros.specs import embodiment


class Training:
    """One run: weights, environments and where it stands."""

    def __init__(self, config: Z1Config, bundle: Bundle, pool: EnvPool, run: Path):
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


def main(config: Z1Config, open_pool: OpenPool = local_workers) -> dict[str, Any]:
    """Train and write the bundle; returns the final figures.

    Args:
        config: What to train.
        open_pool: Where its environments are.
    """
    frozen = config.grpo.trained == "expert"
    return run_learner("z1-train", config, Training, open_pool, frozen_vlm=frozen)


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


def identity(config: Z1Config, bundle: Bundle) -> dict[str, Any]:
    """Return everything that shapes the numbers of a run."""
    return {
        "bundle": bundle.sha256,
        "task": config.task,
        "grpo": asdict(config.grpo),
        "sde": asdict(config.sde(bundle.manifest.denoise_steps)),
        "workers": config.workers,
        "threads": config.threads,
        "max_chunks": config.max_chunks,
        "eval": [config.eval_every, config.eval_episodes],
        "ema": config.ema,
        "seed": config.seed,
    }
