"""Settings of supervised training."""

from dataclasses import dataclass, field, replace
from typing import Literal

from z1_ros.errors import ConfigError, closest
from z1_ros.learning.core.lora import TARGETS
from z1_ros.learning.sft.dataset import Augmentation
from z1_ros.models.bundle.task_experts import VLM_PARTS


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Settings of the optimisation."""

    steps: int = 20_000
    """Number of optimiser steps, unless ``minutes`` is given."""
    minutes: float = 0.0
    """Time budget of training, without saving and validation [min]; 0: train for ``steps``."""
    batch_size: int = 64
    """Number of observations per step."""
    draws: int = 4
    """Number of (noise, time) draws per encoded observation."""
    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up, then a cosine down to 2 % of it. The default is for
    small new networks; openpi and LeRobot fine-tune the published π0.5 with 2.5e-5."""
    vlm_learning_rate: float | None = None
    """Peak learning rate of vision tower, projector and VLM; if not given, ``learning_rate``."""
    warmup: float = 0.03
    """Fraction of the budget that is warm-up."""
    weight_decay: float = 0.01
    """AdamW's weight decay; it acts on matrices only."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Decay of the average of the weights, which becomes the bundle; 0: no average, the last
    weights become the bundle."""
    loss_dims: Literal["real", "all"] = "real"
    """Action dimensions that count in the loss: the ``real`` ones (as in LeRobot), or ``all``,
    including padding (as in openpi)."""
    freeze_vlm: bool = False
    """Train the action expert only."""
    feature_store_gb: float = 0.0
    """Main memory for the prefix features of a frozen VLM [GB]; frames that fit are encoded only
    once, the others in each step. 0: all frames are encoded in each step."""
    feature_variants: int = 1
    """Copies of each frame in memory: itself and augmented ones. 1 trains without augmentation."""
    lora_rank: int = 0
    """Rank of low-rank adapters, which are trained instead of the weights of ``lora_targets``; 0:
    no adapters."""
    lora_alpha: float = 16.0
    """Numerator of the adapters' scale, lora_alpha / lora_rank."""
    lora_targets: str = "vlm"
    """Parts whose linear layers get adapters, separated by commas: ``vlm``, ``vision``, ``expert``.
    With ``vlm`` or ``vision``, all weights of the VLM are frozen; with ``expert``, all weights of
    the expert's layers."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: this needs less memory and more time."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision of the computation; with ``bfloat16`` (autocast) trained weights stay float32."""
    compile: bool = False
    """Compile the loss with torch.compile."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes of training images."""
    checkpoint_minutes: float = 2.0
    """Time between two checkpoints [min]."""
    seed: int = 0
    """Seed of weights, batches and noise."""

    @property
    def lora_parts(self) -> tuple[str, ...]:
        """Parts that get adapters."""
        return tuple(self.lora_targets.split(",")) if self.lora_rank else ()

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Parts with frozen weights; their adapters, if any, are trained."""
        adapted = self.lora_parts
        vlm = VLM_PARTS if self.freeze_vlm or {"vlm", "vision"} & {*adapted} else ()
        return (*vlm, "expert") if "expert" in adapted else vlm

    def __post_init__(self) -> None:
        for part in self.lora_parts:
            if part not in TARGETS:
                raise ConfigError(f"lora_targets names {part!r}. {closest(part, TARGETS)}")
        if min(self.steps, self.batch_size, self.draws, self.feature_variants) < 1:
            raise ConfigError("steps, batch_size, draws and feature_variants must be at least 1")
        if min(self.minutes, self.lora_rank, self.feature_store_gb) < 0:
            raise ConfigError("minutes, lora_rank and feature_store_gb must be at least 0")
        if not (0 <= self.ema < 1 and 0 <= self.warmup < 1):
            raise ConfigError("ema and warmup must be fractions from 0 to below 1")
        if self.freeze_vlm and {"vlm", "vision"} & {*self.lora_parts}:
            raise ConfigError(
                f"freeze_vlm trains nothing of the VLM, lora_targets {self.lora_targets!r} does; "
                "choose one"
            )
        if self.feature_store_gb and not self.freeze_vlm:
            raise ConfigError("feature_store_gb needs freeze_vlm: a trained VLM's keys change")
        if self.feature_variants > 1 and not self.feature_store_gb:
            raise ConfigError(
                "feature_variants are copies in the feature store, so give feature_store_gb"
            )


def without_schedule(config: TrainConfig) -> TrainConfig:
    """Return the config with default values for all settings that do not influence the weights."""
    return replace(config, checkpoint_minutes=2.0, compile=False, gradient_checkpointing=False)
