"""Settings of Z-1's reinforcement learning."""

from dataclasses import dataclass

from z1_ros.errors import ConfigError, closest
from z1_ros.rl.advantage import BASELINE, CALIBRATION, NORMALIZATION
from z1_ros.rl.plan import CREDIT, SHARING

TRAINED = ("expert", "joint", "lora")
FILTERS = ("mask", "resample")
STEP_WEIGHTS = ("equal", "variance")


@dataclass(frozen=True, kw_only=True, slots=True)
class GrpoConfig:
    """Groups, rewards, advantages and updates; names and defaults follow Z-1 where it says them."""

    group_size: int = 8
    """Rollouts of one scene, G; a power of two for a tree."""
    groups: int = 16
    """Groups of one iteration."""
    sharing: str = "prefix"
    """What the rollouts of a group share: ``none``, ``prefix`` or ``tree``."""
    prefix: int = 4
    """Chunks P of the longest shared part."""
    prefix_end: int = 4
    """P after ``prefix_iterations``."""
    prefix_iterations: int = 0
    """Iterations over which P goes from ``prefix`` to ``prefix_end``; 0: it stays."""
    credit: str = "leaf"
    """Advantage of a part that some rollouts share: ``leaf``, ``mean`` or ``td``."""
    calibration: str = "decay"
    """Rewards: ``none`` (binary), ``decay`` (success-aware) or ``penalty``."""
    gamma: float = 0.998
    """Decay of a reward per chunk until success."""
    baseline: str = "group"
    """What a chunk's return is compared with: that of the ``group``, or of those of its rollouts
    that were still ``alive`` at that chunk."""
    normalization: str = "population"
    """``population``, ``unbiased``, ``none`` or ``leave_one_out``."""
    filter_low: float = 0.1
    """Groups with a smaller mean reward are not trained on."""
    filter_high: float = 0.99
    """Nor those with a larger one."""
    filter_by: str = "mask"
    """``mask`` drops such groups; ``resample`` rolls out others in their place."""
    max_resample: int = 3
    """Rounds of further groups that an iteration may take."""
    clip: float = 0.2
    """Probability ratios count from 1 - clip to 1 + clip."""
    clip_high: float = 0.0
    """Upper clip if it differs (clip-higher); 0: as ``clip``."""
    step_weight: str = "equal"
    """Weight of a stochastic denoise step: ``equal``, or by its ``variance``: the gradient of a
    likelihood grows with 1 / std, what its noise does to the actions shrinks with it."""
    update_epochs: int = 1
    """Passes over an iteration's rows."""
    minibatches: int = 4
    """Optimiser steps of a pass."""
    micro_batch: int = 128
    """Rows of one backward pass; changes memory, not the result."""
    trained: str = "expert"
    """``expert`` (over cached prefixes), ``joint`` (the VLM too) or ``lora`` (the VLM by low-rank
    adapters)."""
    learning_rate: float = 3e-5
    """Of the expert."""
    vlm_learning_rate: float = 3e-6
    """Of the VLM or its adapters, if they are trained."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float = 16.0
    """Their products are scaled by lora_alpha / lora_rank."""
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
        for name in (
            "group_size",
            "groups",
            "update_epochs",
            "minibatches",
            "micro_batch",
            "lora_rank",
        ):
            least = 2 if name == "group_size" else 1
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"gamma is {self.gamma}, expected more than 0, at most 1")
        if not 0 <= self.filter_low < self.filter_high <= 1:
            raise ConfigError("filter_low and filter_high must be 0 to 1, the first the smaller")
        if self.baseline == "alive" and self.credit == "td":
            raise ConfigError("credit 'td' has its own baseline; use it with baseline 'group'")
        if self.sharing == "tree" and self.group_size & (self.group_size - 1):
            raise ConfigError(f"a tree needs a group_size of 2, 4, 8, …, it is {self.group_size}")
