"""Settings of Z-1's reinforcement learning."""

from dataclasses import dataclass, field

import tyro

from z1_ros.errors import ConfigError, closest
from z1_ros.learning.core.run_config import RunConfig, require_at_least, require_positive
from z1_ros.learning.grpo.advantage import BASELINE, CALIBRATION, NORMALIZATION
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import CREDIT, SHARING

TRAINED = ("expert", "joint", "lora")
FILTERS = ("mask", "resample")
STEP_WEIGHTS = ("equal", "variance")


@dataclass(frozen=True, kw_only=True, slots=True)
class GrpoConfig:
    """Groups, rewards, advantages and updates; defaults are what learns in the kitchen.

    Z-1 itself states group_size 8, filter 0.1 to 0.99, gamma 0.998, clip 0.2, weight_decay 0.01,
    clip_norm 1; for networks a thousand times larger, a learning rate of 5e-6.
    """

    group_size: int = 8
    """Rollouts of one scene, G; a power of two for a tree."""
    groups: int = 16
    """Groups of one iteration."""
    sharing: str = "prefix"
    """What the rollouts of a group share: ``none``, ``prefix`` or ``tree``."""
    prefix: int = 2
    """Chunks P of the longest shared part."""
    prefix_end: int | None = None
    """P after ``prefix_iterations``; ``prefix`` if not given."""
    prefix_iterations: int = 0
    """Iterations over which P goes from ``prefix`` to ``prefix_end``; 0: at once."""
    credit: str = "leaf"
    """Advantage of a part that some rollouts share: ``leaf``, ``mean`` or ``td``."""
    calibration: str = "decay"
    """Rewards: ``none`` (binary), ``decay`` (success-aware) or ``penalty``."""
    gamma: float = 0.97
    """Decay of a reward per chunk until success."""
    baseline: str = "alive"
    """What a chunk's return is compared with: that of the ``group``, or of those of its rollouts
    that were still ``alive`` at that chunk."""
    normalization: str = "population"
    """``population``, ``unbiased``, ``none`` or ``leave_one_out``."""
    filter_low: float = 0.01
    """Groups with a smaller mean reward are not trained on."""
    filter_high: float = 1.0
    """Nor those with a larger one."""
    filter_by: str = "mask"
    """``mask`` drops such groups; ``resample`` rolls out others in their place."""
    max_resample: int = 3
    """Rounds of further groups that an iteration may take."""
    clip: float = 0.2
    """Probability ratios count from 1 - clip to 1 + clip."""
    clip_high: float = 0.0
    """Upper clip if it differs (clip-higher); 0: as ``clip``."""
    step_weight: str = "variance"
    """Weight of a stochastic denoise step: ``equal``, or by its ``variance``: the gradient of a
    likelihood grows with 1 / std, what its noise does to the actions shrinks with it. Steps that
    share one ratio (``all_sum``, ``all_mean``) always count alike."""
    flow_weight: float = 0.0
    """Weight, beside GRPO's loss, of flow matching on the chunks that did better than their group.
    Probability ratios teach each noisy step by itself; this makes one flow of the steps again, so
    that what was learnt with noise holds without. For runs whose eval_success falls behind their
    train_success."""
    update_epochs: int = 1
    """Passes over an iteration's rows."""
    minibatches: int = 2
    """Optimiser steps of a pass."""
    micro_batch: int = 128
    """Rows of one backward pass; changes memory, not the result."""
    prefix_gb: float = 8.0
    """Memory for encoded observations [GB]; what does not fit is encoded again by each pass."""
    trained: str = "expert"
    """``expert`` (over cached prefixes), ``joint`` (the VLM too) or ``lora`` (the VLM by low-rank
    adapters)."""
    learning_rate: float = 2e-4
    """Of the expert."""
    vlm_learning_rate: float = 2e-5
    """Of the VLM or its adapters, if they are trained."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float = 16.0
    """Their products are scaled by lora_alpha / lora_rank."""
    warmup_iterations: int = 5
    """Iterations over which the learning rates rise to these: Adam's first steps are as long for
    noise as for signal."""
    weight_decay: float = 0.01
    """AdamW's."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    max_kl: float = 0.5
    """Training stops, the best weights kept, if an update moves the policy further than this."""

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        for name, known in (
            ("sharing", SHARING),
            ("credit", CREDIT),
            ("calibration", CALIBRATION),
            ("normalization", NORMALIZATION),
            ("filter_by", FILTERS),
            ("baseline", BASELINE),
            ("step_weight", STEP_WEIGHTS),
            ("trained", TRAINED),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"{name} is {value!r}. {closest(value, known)}")
        require_at_least(self, 2, "group_size")
        require_at_least(self, 1, "groups", "update_epochs", "minibatches", "micro_batch")
        require_at_least(self, 1, "lora_rank")
        require_at_least(self, 0, "prefix", "last_prefix", "prefix_iterations", "max_resample")
        require_at_least(self, 0, "warmup_iterations", "clip_high", "weight_decay", "prefix_gb")
        require_at_least(self, 0, "flow_weight")
        require_positive(self, "clip", "learning_rate", "vlm_learning_rate", "lora_alpha")
        require_positive(self, "clip_norm", "max_kl", "gamma")
        for name in ("clip", "gamma"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at most 1")
        if not 0 <= self.filter_low < self.filter_high <= 1:
            raise ConfigError("filter_low and filter_high must be 0 to 1, the first the smaller")
        if self.baseline == "alive" and self.credit == "td":
            raise ConfigError("credit 'td' has its own baseline; use it with baseline 'group'")
        if self.sharing == "tree" and self.group_size & (self.group_size - 1):
            raise ConfigError(f"a tree needs a group_size of 2, 4, 8, …, it is {self.group_size}")

    @property
    def last_prefix(self) -> int:
        """P at the end of its schedule."""
        return self.prefix if self.prefix_end is None else self.prefix_end


@dataclass(frozen=True, kw_only=True, slots=True)
class Z1Config(RunConfig):
    """Improve a policy on one task by Z-1's GRPO, in simulation."""

    through: str = "inproc"
    """``inproc``: environments in processes of this machine; ``ros``: behind sim_bridge_node."""
    grpo: tyro.conf.OmitArgPrefixes[GrpoConfig] = field(default_factory=GrpoConfig)
    """Groups, rewards, updates."""
    noise: str = "cps"
    """Kind of noise while sampling: flow-``sde``, or flow-``cps``."""
    noise_level: float = 1.0
    """Its level a."""
    noise_correlation: float = 0.2
    """Share of its variance that the actions of a chunk have in common."""
    stochastic: str = "all_each"
    """Stochastic denoise steps: ``one``, ``all_sum``, ``all_mean`` or ``all_each``."""
    ignore_last: bool = False
    """Never make the last denoise step stochastic."""
    max_chunks: int = 0
    """Chunks after which a training episode counts as failed; 0: the task's own horizon."""
    ema: float = 0.0
    """Decay, by iteration, of an average of the weights that is measured and becomes the bundle,
    while rollouts and updates go on with the weights themselves; 1: the plain mean over the run.
    Much of what an update adds is chance, and averaging takes it out. 0: no average."""

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        RunConfig.__post_init__(self)
        if self.through not in ("inproc", "ros"):
            raise ConfigError(f"through is {self.through!r}, expected 'inproc' or 'ros'")
        require_at_least(self, 0, "max_chunks", "ema")
        if self.ema > 1:
            raise ConfigError(f"ema is {self.ema}, expected at most 1")
        require_positive(self, "noise_level")

    def sde(self, steps: int) -> FlowSde:
        """Return how a policy of so many denoise steps samples in training."""
        return FlowSde(
            noise=self.noise,
            noise_level=self.noise_level,
            correlation=self.noise_correlation,
            steps=steps,
            stochastic=self.stochastic,
            ignore_last=self.ignore_last,
        )
