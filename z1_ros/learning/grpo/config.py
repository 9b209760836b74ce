"""Settings of Z-1's reinforcement learning."""

from dataclasses import dataclass, field
from typing import Literal

import tyro

from z1_ros.errors import ConfigError
from z1_ros.learning.core.run_config import RunConfig, require
from z1_ros.learning.grpo.advantage import Calibration
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import Sharing


@dataclass(frozen=True, kw_only=True, slots=True)
class GrpoConfig:
    """Groups, rewards, advantages and updates; the defaults work well in the kitchen.

    The Z-1 paper uses group_size 8, filter 0.1 to 0.99, gamma 0.998, clip 0.2, weight_decay 0.01
    and clip_norm 1; for networks a thousand times larger, a learning rate of 5e-6.
    """

    group_size: int = 8
    """Number of rollouts of one scene, G; a power of two for a tree."""
    groups: int = 16
    """Number of groups in one iteration."""
    sharing: Sharing = "prefix"
    """Sharing between the rollouts of a group: ``none``, one common start (``prefix``), or a
    ``tree`` of common parts."""
    shared_chunks: int = 2
    """Number of action chunks P in the longest shared part."""
    calibration: Calibration = "decay"
    """Reward of a success: 1 (``none``), or less for a later success (``decay``, ``penalty``). With
    ``decay``, a group in which all rollouts succeed has no negative advantages."""
    gamma: float = 0.97
    """Decay of the reward per chunk until success."""
    baseline: Literal["group", "alive"] = "alive"
    """Baseline of a chunk's return: the mean over the ``group``, or over those of its rollouts
    that still run at that chunk (``alive``)."""
    filter_range: tuple[float, float] = (0.01, 1.0)
    """Smallest and largest mean reward of groups that are trained on; the others are dropped."""
    flow_weight: float = 0.0
    """Weight of an additional loss: flow matching on the chunks with a positive advantage. It keeps
    the policy without noise as good as the policy with noise. Use it if eval_success is lower than
    train_success."""
    update_epochs: int = 1
    """Passes over an iteration's chunks."""
    trained: Literal["expert", "joint", "lora"] = "expert"
    """Trained parts: only the action ``expert``, on stored prefix features; also the VLM
    (``joint``); or also the VLM, by low-rank adapters (``lora``)."""
    learning_rate: float = 2e-4
    """Learning rate of the action expert."""
    step_weight: tyro.conf.Suppress[Literal["equal", "variance"]] = "variance"
    """Weight of a stochastic denoise step in the loss: ``equal``, or by the ``variance`` of its
    noise. The gradient of a likelihood grows with 1 / std, but the effect of the noise on the
    actions becomes smaller."""
    vlm_learning_rate: tyro.conf.Suppress[float] = 2e-5
    """Learning rate of the VLM, or of its adapters, if they are trained."""
    clip: tyro.conf.Suppress[float] = 0.2
    """Probability ratios are clipped to 1 - clip … 1 + clip."""
    minibatches: tyro.conf.Suppress[int] = 2
    """Number of optimiser steps in a pass."""
    micro_batch: tyro.conf.Suppress[int] = 128
    """Rows of one backward pass; changes memory, not the result."""
    feature_store_gb: tyro.conf.Suppress[float] = 8.0
    """Memory for prefix features [GB]; observations that do not fit are encoded in each pass."""
    lora_rank: tyro.conf.Suppress[int] = 16
    """Rank of the adapters."""
    lora_alpha: tyro.conf.Suppress[float] = 16.0
    """Adapters are scaled by lora_alpha / lora_rank."""
    warmup_iterations: tyro.conf.Suppress[int] = 5
    """Number of iterations over which the learning rates rise, because Adam's first steps are as
    large for noise as for signal."""
    weight_decay: tyro.conf.Suppress[float] = 0.01
    """AdamW's weight decay."""
    clip_norm: tyro.conf.Suppress[float] = 1.0
    """Largest gradient norm."""
    max_kl: tyro.conf.Suppress[float] = 0.5
    """Largest KL divergence of an update; if it is larger, training stops and the best weights
    become the bundle."""

    def __post_init__(self) -> None:
        require(self, "at least", 2, "group_size")
        require(self, "at least", 1, "groups", "update_epochs", "minibatches", "micro_batch")
        require(self, "at least", 1, "lora_rank")
        require(self, "at least", 0, "shared_chunks", "warmup_iterations", "weight_decay")
        require(self, "at least", 0, "feature_store_gb", "flow_weight")
        require(self, "more than", 0, "clip", "learning_rate", "vlm_learning_rate", "lora_alpha")
        require(self, "more than", 0, "clip_norm", "max_kl", "gamma")
        require(self, "at most", 1, "clip", "gamma")
        low, high = self.filter_range
        if not 0 <= low < high <= 1:
            raise ConfigError(f"filter_range is {low} {high}, expected 0 to 1, the first smaller")
        if self.sharing == "tree" and self.group_size & (self.group_size - 1):
            raise ConfigError(f"a tree needs a group_size of 2, 4, 8, …, it is {self.group_size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Z1Config(RunConfig):
    """Improve a policy on one task by Z-1's GRPO, in simulation."""

    through: Literal["inproc", "ros"] = "inproc"
    """Where environments run: ``inproc``, in processes on this machine; ``ros``, each behind
    sim_bridge_node and guard_node."""
    grpo: tyro.conf.OmitArgPrefixes[GrpoConfig] = field(default_factory=GrpoConfig)
    """Groups, rewards, updates."""
    noise: Literal["sde", "cps"] = "cps"
    """Exploration noise of rollouts: ``sde`` adds noise in a denoise step, ``cps`` replaces a part
    of the noise."""
    noise_level: float = 1.0
    """Level a of the noise; with ``cps`` at most 1, which replaces all of the noise."""
    noise_correlation: float = 0.2
    """Share of the noise's variance that is common to all actions of a chunk."""
    stochastic: Literal["one", "all"] = "all"
    """Denoise steps with noise: ``one`` random step of each chunk, or ``all``."""
    max_chunks: int = 0
    """Number of chunks after which a training episode counts as failed; 0: only the task's horizon
    ends it."""
    ema: float = 0.0
    """Decay per iteration of the average of the weights. The averaged weights are evaluated and
    become the bundle; rollouts and updates use the current weights. 1: the plain mean over the run;
    0: no average."""

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        require(self, "at least", 0, "max_chunks", "ema")
        require(self, "at most", 1, "ema")
        require(self, "more than", 0, "noise_level")
        self.sde(2)

    def sde(self, steps: int) -> FlowSde:
        """Return the sampling settings for a policy with ``steps`` denoise steps."""
        return FlowSde(
            noise=self.noise,
            noise_level=self.noise_level,
            correlation=self.noise_correlation,
            steps=steps,
            stochastic=self.stochastic,
        )
