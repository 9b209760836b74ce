"""Settings of reinforcement learning by search."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from z1_ros.errors import ConfigError
from z1_ros.rl.grpo_config import VALIDATION_SEED, require_at_least, require_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """How chunks are searched, and what is learnt from it."""

    proposals: int = 4
    """Chunks that the policy proposes in each state."""
    neighbours: int = 4
    """Chunks near the best one that are tried in each refinement."""
    refinements: int = 2
    """Times that chunks nearby are tried, at half the distance each time."""
    sigma: float = 0.1
    """Shift of a chunk nearby, in units of action; a standard deviation."""
    margin: float = 0.1
    """By how much a chunk nearby has to be better, in the critic's logits."""
    doubt: float = 0.5
    """Standard deviations of the critic's members that are taken off its mean."""
    gamma: float = 0.96
    """Discount of success, by chunk: the critic prefers what gets there sooner."""
    critic_steps: int = 800
    """Steps of each fit of the critic, at most."""
    warmup_episodes: int = 360
    """Episodes of the first round: the critic's first lessons, nothing else is learnt."""
    own_share: float = 0.4
    """Of these, the share in which the policy acts undisturbed; in the rest it explores."""
    explore_share: float = 0.4
    """Of an exploring episode's chunks, the share that is shifted."""
    episodes: int = 64
    """Episodes of each further round."""
    search_share: float = 0.4
    """Of these, the share in which what was found is executed; in the rest the policy acts."""
    max_chunks: int = 0
    """Chunks after which an episode counts as failed; 0: at the task's own horizon."""
    window: int = 16
    """Rounds of which lessons and outcomes are kept."""
    steps: int = 150
    """Optimiser steps of the action expert in each round."""
    batch_size: int = 64
    """States of a step."""
    draws: int = 4
    """Noises and flow times drawn for each of them."""
    learning_rate: float = 3e-4
    """AdamW's."""
    weight_decay: float = 0.01
    """AdamW's."""
    clip_norm: float = 1.0
    """Longest gradient."""
    ema: float = 0.995
    """Decay, by step, of the average of the weights; it acts, is measured and becomes the
    bundle."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_at_least(self, 1, "proposals", "critic_steps", "warmup_episodes", "episodes")
        require_at_least(self, 1, "window", "steps", "batch_size", "draws")
        require_at_least(self, 0, "refinements", "sigma", "margin", "doubt", "max_chunks")
        require_at_least(self, 0, "neighbours", "own_share", "explore_share", "search_share")
        require_at_least(self, 0, "weight_decay", "ema")
        require_positive(self, "gamma", "learning_rate", "clip_norm")
        if self.refinements and not self.neighbours:
            raise ConfigError("a refinement needs neighbours; set refinements to 0 for none")
        for name in ("gamma", "own_share", "explore_share", "search_share"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at most 1")
        if self.ema >= 1:
            raise ConfigError(f"ema is {self.ema}, expected less than 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRunConfig:
    """Improve a policy on one task by search in simulation, guided by a learnt critic."""

    bundle: str
    """Bundle to start from: a directory, or the name of a shipped one."""
    task: str
    """Task to improve."""
    out: Path
    """Bundle to write."""
    minutes: float = 60.0
    """Time budget [min]; 0: none. Of several budgets, the first to be used up ends training."""
    iterations: int = 0
    """Budget of rounds; 0: none."""
    env_steps: int = 0
    """Budget of control steps, those of trials included; 0: none."""
    lanes: int = 12
    """Environments at work side by side."""
    threads: int = 1
    """Threads of inference during episodes; the update uses all cores."""
    search: tyro.conf.OmitArgPrefixes[SearchConfig] = field(default_factory=SearchConfig)
    """Search, critic, update."""
    eval_every: int = 5
    """Rounds between two measurements of the policy."""
    eval_episodes: int = 100
    """Episodes of each."""
    keep: str = "last"
    """Weights that become the bundle: the ``last``, or the ``best`` measured."""
    run: Path | None = None
    """Folder of checkpoints and logs; if not given, beside the bundle: ``<out>-run``."""
    resume: bool = True
    """Go on from the run folder's checkpoint if there is one."""
    seed: int = 0
    """Seeds scenes, noise and batches."""
    export: bool = True
    """Export prefix.onnx and denoise.onnx at the end."""
    json: Path | None = None
    """Write the final figures here."""

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        if self.keep not in ("best", "last"):
            raise ConfigError(f"keep is {self.keep!r}, expected 'best' or 'last'")
        require_at_least(self, 1, "lanes", "threads", "eval_every", "eval_episodes")
        require_at_least(self, 0, "minutes", "iterations", "env_steps", "seed")
        if not (self.minutes or self.iterations or self.env_steps):
            raise ConfigError("without minutes, iterations and env_steps training would never end")
        if self.eval_episodes > 10_000 - VALIDATION_SEED:
            raise ConfigError(f"eval_episodes is {self.eval_episodes}, expected at most 1000")
