"""Settings of supervised training."""

from dataclasses import dataclass, field, replace

from z1_ros.errors import ConfigError, closest
from z1_ros.learning.sft.dataset import Augmentation
from z1_ros.models.bundle.task_experts import VLM_PARTS

PRECISIONS = ("float32", "tf32", "bfloat16")
LORA_TARGETS = ("vlm", "vision", "expert")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Optimisation."""

    steps: int = 20_000
    """Optimiser steps, unless ``minutes`` is given."""
    minutes: float = 0.0
    """Time budget of training alone [min]; 0 trains for ``steps``."""
    batch_size: int = 64
    """Observations per step."""
    draws: int = 4
    """(noise, time) draws per encoded observation."""
    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up, then a cosine down to 2 % of it. The default is for
    small new networks; openpi and LeRobot fine-tune the published π0.5 with 2.5e-5."""
    vlm_learning_rate: float | None = None
    """Peak for vision tower, projector and VLM; None is ``learning_rate``."""
    warmup: float = 0.03
    """Part of the budget that is warm-up."""
    weight_decay: float = 0.01
    """AdamW's, on matrices."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones kept; 0 keeps the last ones."""
    loss_dims: str = "real"
    """``real`` action dimensions (as LeRobot) or ``all``, padding too (as openpi)."""
    freeze_vlm: bool = False
    """Train the action expert only."""
    prefix_cache_gb: float = 0.0
    """Main memory for keys and values of a frozen VLM [GB], each frame being encoded once; frames
    that do not fit are encoded in each step. 0 encodes all in each step."""
    prefix_variants: int = 1
    """Copies of each frame in the cache: itself and augmented ones. 1 trains without augmentation.
    """
    lora_rank: int = 0
    """Rank of low-rank adapters, which are trained in place of ``lora_targets``; 0: no adapters."""
    lora_alpha: float = 16.0
    """Adapters are scaled by this over their rank."""
    lora_targets: str = "vlm"
    """Parts whose linear layers get adapters, with commas between: ``vlm``, ``vision``, ``expert``.
    The first two freeze the rest of the VLM, ``expert`` freezes all of its layers."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, which needs less memory and more time."""
    precision: str = "float32"
    """``float32``, ``tf32`` or ``bfloat16`` (autocast; trained weights stay float32)."""
    compile: bool = False
    """Compile the loss with torch.compile."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes of training images."""
    checkpoint_minutes: float = 2.0
    """Time between two checkpoints [min]."""
    seed: int = 0
    """Seeds weights, batches and noise."""

    @property
    def lora_parts(self) -> tuple[str, ...]:
        """Parts that get adapters."""
        return tuple(self.lora_targets.split(",")) if self.lora_rank else ()

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Parts whose own weights are not trained."""
        adapted = self.lora_parts
        vlm = VLM_PARTS if self.freeze_vlm or {"vlm", "vision"} & {*adapted} else ()
        return (*vlm, "expert") if "expert" in adapted else vlm

    def __post_init__(self) -> None:
        """Check ranges and choices; raises ConfigError."""
        for name, values, known in (
            ("precision", [self.precision], PRECISIONS),
            ("loss_dims", [self.loss_dims], ("real", "all")),
            ("lora_targets", self.lora_parts, LORA_TARGETS),
        ):
            for value in values:
                if value not in known:
                    raise ConfigError(f"{name} is {value!r}. {closest(value, known)}")
        if min(self.steps, self.batch_size, self.draws, self.prefix_variants) < 1:
            raise ConfigError("steps, batch_size, draws and prefix_variants must be at least 1")
        if min(self.minutes, self.lora_rank, self.prefix_cache_gb) < 0:
            raise ConfigError("minutes, lora_rank and prefix_cache_gb must be at least 0")
        if not (0 <= self.ema < 1 and 0 <= self.warmup < 1):
            raise ConfigError("ema and warmup must be fractions from 0 to below 1")
        if self.freeze_vlm and {"vlm", "vision"} & {*self.lora_parts}:
            raise ConfigError(
                f"freeze_vlm trains nothing of the VLM, lora_targets {self.lora_targets!r} does; "
                "choose one"
            )
        if self.prefix_cache_gb and not self.freeze_vlm:
            raise ConfigError("prefix_cache_gb needs freeze_vlm: a trained VLM's keys change")
        if self.prefix_variants > 1 and not self.prefix_cache_gb:
            raise ConfigError("prefix_variants are copies in the cache, so give prefix_cache_gb")


def without_schedule(config: TrainConfig) -> TrainConfig:
    """Return the config with what does not shape the weights set to its default."""
    return replace(config, checkpoint_minutes=2.0, compile=False, gradient_checkpointing=False)
