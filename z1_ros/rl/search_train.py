"""``z1-search``: reinforcement learning by search, where one success says too little of each chunk.

One iteration is a round: fit a critic of the simulator's truth to the outcomes so far, let the
policy act while every chunk is searched (``z1_ros.rl.search``), and train the action expert, over
prefixes that were computed anyway, on what the search found in the states that were visited. The
reward is the task's success and nothing else; the critic, which sees what a robot does not, is
thrown away. Every draw follows from (seed, iteration), so a run that was killed goes on with the
same numbers.

Source: expert iteration (arXiv 1705.08439), on the states that the learner itself visits as in
DAgger (arXiv 1011.0686); a critic that sees more than the policy: arXiv 1710.06542.
"""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from z1_ros.command import run_command
from z1_ros.errors import Diverged
from z1_ros.models.bundle_network import load_bundle_network
from z1_ros.models.manifest import Bundle
from z1_ros.models.pi05 import draw_time
from z1_ros.models.task_experts import EXPERT_PARTS
from z1_ros.rl.actor import Actor
from z1_ros.rl.collect import Collector
from z1_ros.rl.critic import Critic, fit_critic
from z1_ros.rl.grpo_config import VALIDATION_SEED
from z1_ros.rl.lanes import LanePool, local_lanes
from z1_ros.rl.loss import flow_loss
from z1_ros.rl.replay import Replay
from z1_ros.rl.search import Episode, Searcher, SearchJob, outcomes_of
from z1_ros.rl.search_config import SearchRunConfig
from z1_ros.rl.train import Lanes, run_learner, start_expert
from z1_ros.rl.train_state import TrainState
from z1_ros.specs import embodiment

REPLAY = "replay"
"""Folder of a run's lessons."""


class SearchTraining:
    """One run: weights, environments, critic, lessons, and where it stands."""

    update_threads = torch.get_num_threads()

    def __init__(self, config: SearchRunConfig, bundle: Bundle, pool: LanePool, run: Path):
        self.config = config
        manifest = bundle.manifest
        robot = embodiment(manifest.embodiment)
        expert = start_expert(bundle, config.task)
        self.network = load_bundle_network(bundle, expert, torch.float32)
        self.network.eval().requires_grad_(False)
        parts = [getattr(self.network, part) for part in EXPERT_PARTS]
        self.trained = [parameter for part in parts for parameter in part.parameters()]
        for parameter in self.trained:
            parameter.requires_grad_(True)
        self.actor = Actor(self.network, bundle, robot, config.seed)
        self.collector = Collector(pool, self.actor, manifest.replan_steps)
        self.searcher = Searcher(pool, self.actor, robot, config.search, config.seed)
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=config.search.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=config.search.weight_decay,
        )
        self.replay = Replay(run / REPLAY, config.search.window)
        self.identity = identity(config, bundle)
        self.state = _State(
            run, self.network, self.optimizer, self.identity, config.search.ema, self.replay
        )

    def iterate(self) -> dict[str, float]:
        """Act, learn, and return the round's figures."""
        iteration, search = self.state.iteration, self.config.search
        began, before = time.perf_counter(), self._steps_so_far
        figures: dict[str, float] = {}
        critic: Critic | None = None
        torch.set_num_threads(self.config.threads)
        if iteration:
            seed = self.config.seed * 1_000_003 + iteration
            critic, figures = fit_critic(self.replay.outcomes, steps=search.critic_steps, seed=seed)
        fitted = time.perf_counter()
        with self.state.average.in_place():
            episodes, lessons = self.searcher.run(self.jobs(iteration), critic)
        outcomes = outcomes_of(episodes, search.gamma, self.actor.manifest.replan_steps)
        self.replay.add(iteration, lessons, outcomes)
        rolled = time.perf_counter()
        steps = self._steps_so_far - before
        self.state.env_steps += steps
        figures |= success_of(episodes)
        figures |= {
            "env_steps": float(self.state.env_steps),
            "env_steps_per_s": steps / (rolled - fitted),
            "critic_s": fitted - began,
            "rollout_s": rolled - fitted,
        }
        if lessons is not None:
            torch.set_num_threads(max(self.config.threads, self.update_threads))
            figures |= {"gain": lessons.gains.mean().item(), "lessons": float(len(self.replay))}
            figures |= self.learn(iteration)
        self.state.iteration += 1
        return figures | {"update_s": time.perf_counter() - rolled}

    @property
    def _steps_so_far(self) -> int:
        return self.searcher.counts.env_steps + self.searcher.tried_steps

    def jobs(self, iteration: int) -> list[SearchJob]:
        """Return a round's episodes: other scenes each time, each acted in one of the ways."""
        search = self.config.search
        random = np.random.default_rng([self.config.seed, iteration])
        count = search.episodes if iteration else search.warmup_episodes
        seeds = random.permutation(VALIDATION_SEED)
        special = "search" if iteration else "explore"
        share = search.search_share if iteration else 1 - search.own_share
        acting = np.where(random.random(count) < share, special, "own")
        return [
            SearchJob((iteration, i), int(seeds[i % VALIDATION_SEED]), str(acting[i]))
            for i in range(count)
        ]

    def learn(self, iteration: int) -> dict[str, float]:
        """Train the expert on lessons of the window.

        Raises:
            Diverged: A gradient is not finite.
        """
        search, dims = self.config.search, self.actor.real_dims
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + iteration)
        losses, norms = [], []
        for step in range(search.steps):
            prefix, chunks = self.replay.draw(search.batch_size, random)
            count = search.batch_size * search.draws
            noise = torch.randn(count, *chunks.shape[1:], generator=random)
            moment = draw_time((count,), random)
            valid = torch.ones(chunks.shape[:2], dtype=torch.bool)
            loss = flow_loss(self.network, prefix, chunks, valid, noise, moment, dims=dims)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.trained, search.clip_norm).item()
            if not math.isfinite(norm):
                raise Diverged("its gradient is not finite")
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.state.average.update((iteration - 1) * search.steps + step + 1)
            losses.append(loss.item())
            norms.append(norm)
        return {"flow_loss": float(np.mean(losses)), "grad_norm": float(np.mean(norms))}

    def check(self, figures: dict[str, Any]) -> None:
        """Nothing but a gradient says that the policy diverged."""


class _State(TrainState):
    """The same, with the lessons in files of their own."""

    def __init__(
        self,
        run: Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: dict[str, Any],
        ema: float,
        replay: Replay,
    ):
        super().__init__(run, network, optimizer, identity, ema)
        self._replay = replay

    def begin(self) -> None:
        """Remove what an earlier run left in the folder."""
        super().begin()
        self._replay.clear()

    def save(self) -> None:
        """Write everything that going on needs."""
        super().save()
        self._replay.forget_files(self.iteration)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint; return whether there was one."""
        if not super().resume():
            return False
        self._replay.load(self.iteration)
        return True


def success_of(episodes: list[Episode]) -> dict[str, float]:
    """Return the success of the policy's own episodes, and of those in which the search acted."""
    figures = {}
    for acting, name in (("own", "train_success"), ("search", "search_success")):
        found = [episode.success for episode in episodes if episode.job.acting == acting]
        if found:
            figures[name] = float(np.mean(found))
    return figures


def identity(config: SearchRunConfig, bundle: Bundle) -> dict[str, Any]:
    """Return everything that shapes the numbers of a run."""
    return {
        "bundle": bundle.sha256,
        "task": config.task,
        "search": asdict(config.search),
        "lanes": config.lanes,
        "threads": config.threads,
        "eval": [config.eval_every, config.eval_episodes],
        "seed": config.seed,
    }


def main(config: SearchRunConfig, open_lanes: Lanes = local_lanes) -> dict[str, Any]:
    """Train and write the bundle; returns the final figures.

    Args:
        config: What to train.
        open_lanes: Where its environments are; they must tell the simulator's truth.
    """
    return run_learner("z1-search", config, SearchTraining, open_lanes, frozen_vlm=True)


def cli() -> int:
    """Entry point of ``z1-search``."""
    return run_command("z1-search", main, SearchRunConfig)


if __name__ == "__main__":
    raise SystemExit(cli())
