"""Z-1's reinforcement learning of a policy bundle on one task: the loop of ``z1-train``.

``GrpoTraining.iterate`` runs one iteration: collect groups of episodes that share a scene and a
start, compute advantages from their successes, and update the action expert. At regular intervals
the policy is evaluated as deployed. All random numbers depend only on (seed, iteration), so a
resumed run gives the same results.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from z1_ros.errors import Diverged
from z1_ros.learning.core.lora import add_adapters
from z1_ros.learning.core.run import TrainingRun
from z1_ros.learning.grpo.config import GrpoConfig, Z1Config
from z1_ros.learning.grpo.update import Update, make_batch, score
from z1_ros.learning.rollout.collector import Group, GroupJob, sampling
from z1_ros.learning.rollout.env_pool import EnvPool, OpenPool, local_workers
from z1_ros.learning.rollout.features import RolloutFeatures
from z1_ros.learning.rollout.plan import plan_group
from z1_ros.learning.rollout.session import Training, evaluate, mean_chunks, train_bundle
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.task_experts import EXPERT_PARTS
from z1_ros.models.network.pi05 import Pi05


class GrpoTraining(Training):
    """One run: the policy, its environments and its progress."""

    def __init__(self, config: Z1Config, bundle: Bundle, pool: EnvPool, folder: Path):
        """Load the policy; this does not train, and does not read or write the folder."""
        super().__init__(config, bundle, pool)
        self.config, grpo = config, config.grpo
        self.optimizer = make_optimizer(self.network, grpo, config.seed)
        self.sde = config.sde(bundle.manifest.denoise_steps)
        joint = grpo.trained != "expert"
        self.features = RolloutFeatures(self.network, joint=joint, limit_gb=grpo.feature_store_gb)
        self.update = Update(self.network, self.optimizer, grpo, self.sde, self.features.prefix_of)
        made_with = fingerprint(config, bundle)
        self.run = TrainingRun(
            folder, config, self.network, self.optimizer, made_with, average_decay=config.ema
        )

    def train(self) -> None:
        """Iterate until a budget is used up; raises Diverged, the best weights are then kept."""
        while not self.run.finished:
            with self.run.one_iteration() as metrics:
                if self.run.counters.iteration % self.config.eval_every == 0:
                    metrics |= evaluate(self.run, self.collector, self.sampler)
                metrics |= self.iterate(self.run.counters.iteration)
                refuse_large_update(metrics, self.config.grpo.max_kl)

    def iterate(self, iteration: int) -> dict[str, float]:
        """Collect rollouts and update the policy; return the iteration's metrics."""
        config, grpo = self.config, self.config.grpo
        began, before = time.perf_counter(), self.collector.counts.env_steps

        # Collect: groups of rollouts of one scene each, sampled with noise.
        self.features.clear()
        torch.set_num_threads(1)
        groups = self.collect(iteration)
        rolled = time.perf_counter()

        # Advantage: compare each chunk with the rest of its group.
        torch.set_num_threads(self.update_threads)
        scored = [score(group, grpo) for group in groups]
        batch = make_batch(groups, scored, self.sampler.real_dims)
        env_steps = self.collector.counts.env_steps - before
        self.run.counters.env_steps += env_steps
        metrics = {
            "train_success": float(np.mean([group.success.mean() for group in groups])),
            "group_filter_rate": 1 - float(np.mean([own is not None for own in scored])),
            "chunks_to_success": mean_chunks(groups),
            "env_steps_per_s": env_steps / (rolled - began),
            "rollout_s": rolled - began,
        }

        # Update: a few clipped steps on the prefix features that the rollouts computed.
        if batch is not None:
            set_learning_rates(self.optimizer, grpo, iteration)
            generator = torch.Generator().manual_seed(config.batch_seed(iteration))
            metrics |= self.update.run(batch, generator)
        self.run.average.update(iteration + 1)
        return metrics | {"update_s": time.perf_counter() - rolled}

    def collect(self, iteration: int) -> list[Group]:
        """Run and return an iteration's groups; each group has its own scene."""
        grpo = self.config.grpo
        plan = plan_group(grpo.group_size, grpo.sharing, grpo.shared_chunks)
        scenes = self.config.scenes(iteration, grpo.groups)
        jobs = [GroupJob((iteration, i), plan, seed) for i, seed in enumerate(scenes)]
        policy = sampling(self.sampler, self.sde, self.features)
        return self.collector.run(jobs, policy, max_chunks=self.config.max_chunks)


def main(config: Z1Config, open_pool: OpenPool = local_workers) -> dict[str, Any]:
    """Train, write the bundle and return the final metrics; see ``train_bundle``."""
    frozen = config.grpo.trained == "expert"
    return train_bundle("z1-train", config, GrpoTraining, open_pool, frozen_vlm=frozen)


def make_optimizer(network: Pi05, config: GrpoConfig, seed: int) -> torch.optim.AdamW:
    """Freeze parameters, add adapters if configured; return an optimiser of the trained ones."""
    network.requires_grad_(config.trained == "joint")
    if config.trained == "lora":
        add_adapters(
            network, ("vlm", "vision"), rank=config.lora_rank, alpha=config.lora_alpha, seed=seed
        )
    parts = [getattr(network, part).requires_grad_(True) for part in EXPERT_PARTS]
    expert = [parameter for part in parts for parameter in part.parameters()]
    groups: list[dict[str, Any]] = [{"params": expert, "lr": config.learning_rate}]
    known = {id(parameter) for parameter in expert}
    vlm = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    if vlm:
        groups.append({"params": vlm, "lr": config.vlm_learning_rate})
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=config.weight_decay)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, config: GrpoConfig, iteration: int
) -> None:
    """Set the learning rates of an iteration, for the action expert and a trained VLM."""
    share = min(1.0, (iteration + 1) / max(1, config.warmup_iterations))
    rates = (config.learning_rate, config.vlm_learning_rate)
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate * share


def refuse_large_update(metrics: dict[str, Any], max_kl: float) -> None:
    """Raise Diverged if the KL divergence of an update is larger than ``max_kl``."""
    for kl in (metrics.get("kl", 0.0), metrics.get("kl_update", 0.0)):
        if not kl <= max_kl:
            raise Diverged(f"an update moved it by KL {kl:.3g}")


def fingerprint(config: Z1Config, bundle: Bundle) -> dict[str, Any]:
    """Return all settings that influence the results of a run."""
    return {
        "method": "GRPO",
        "bundle": bundle.sha256,
        "robot": config.robot,
        "task": config.task,
        "grpo": asdict(config.grpo),
        "sde": asdict(config.sde(bundle.manifest.denoise_steps)),
        "workers": config.workers,
        "max_chunks": config.max_chunks,
        "eval": [config.eval_every, config.eval_episodes],
        "ema": config.ema,
        "seed": config.seed,
    }
