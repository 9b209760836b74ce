"""The supervised training loop: flow matching, averaged weights, exact resume.

Each step draws random numbers from a generator seeded by (seed, step). A run that was killed and
resumed therefore gives the same weights as one without interruption (on the same machine, with a
step budget).

Trained weights, their gradients, their average and the optimiser's state are always float32. With
``precision="bfloat16"``, the layers compute in bfloat16.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from z1_ros.errors import TrainingError
from z1_ros.learning.core.checkpoint import TrainingCheckpoint
from z1_ros.learning.core.ema import WeightAverage
from z1_ros.learning.core.feature_store import FeatureStore
from z1_ros.learning.core.lora import add_adapters, plain_weights
from z1_ros.learning.core.loss import draw_flow, flow_loss
from z1_ros.learning.sft.config import VLM_PARTS, TrainConfig
from z1_ros.learning.sft.dataset import Frames
from z1_ros.models.network.pi05 import Pi05, Prefix

LOG_EVERY = 50
"""Number of steps between two log records; reading the loss waits for the GPU."""


class Trainer:
    """A training run: weights, their average, optimiser and schedule."""

    def __init__(
        self,
        network: Pi05,
        config: TrainConfig,
        real_dims: int,
        device: torch.device,
        fingerprint: dict[str, Any],
    ):
        """Set up a run, which changes the network in place; ``real_dims`` leaves out padding.

        ``fingerprint`` contains all settings that influence the result, as JSON data, including the
        weights that are not trained; a checkpoint with another fingerprint is refused.
        """
        self.config = config
        self.device = device
        self._fingerprint = fingerprint
        self.step = 0
        self.elapsed_s = 0.0
        self.real_dims = real_dims
        self.dims = real_dims if config.loss_dims == "real" else network.geometry.action_dim
        self._dtypes = {n: p.dtype for n, p in network.named_parameters()}
        self.network = prepare(network.to(device), config)
        self.parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.average = WeightAverage(self.parameters, config.ema)
        self.features: FeatureStore | None = None
        self._optimizer = make_optimizer(network, self.parameters, config)
        self._encode: Callable[..., Prefix] = network.prefix
        self._loss: Callable[..., Tensor] = flow_loss
        if config.compile:
            self._encode, self._loss = torch.compile(network.prefix), torch.compile(flow_loss)
        torch.set_float32_matmul_precision("highest" if config.precision == "float32" else "high")

    @property
    def progress(self) -> float:
        """Share of the budget that is used up, from 0 to 1."""
        if self.config.minutes:
            return min(1.0, self.elapsed_s / (60 * self.config.minutes))
        return min(1.0, self.step / self.config.steps)

    def learning_rate(self) -> float:
        """Return the current learning rate of the action expert."""
        return self.config.learning_rate * schedule(self.progress, self.config.warmup)

    def train(
        self, frames: Frames, checkpoint: Path, validate: Callable[["Trainer"], dict[str, float]]
    ) -> Iterator[dict[str, float]]:
        """Train until the budget is used up; raises TrainingError if the loss is not finite.

        Yields a log record every ``LOG_EVERY`` steps and after each checkpoint.
        """
        if self.progress >= 1:  # a complete run that was started again
            yield {"step": self.step, **validate(self)}
            return
        self.fill_features(frames)
        last = saved = time.perf_counter()
        total, since, since_time = torch.zeros((), device=self.device), 0, last
        while self.progress < 1:
            total += self.train_step(frames)
            since += 1
            now = time.perf_counter()
            self.elapsed_s, last = self.elapsed_s + now - last, now
            over = self.progress >= 1
            save = over or now - saved > 60 * self.config.checkpoint_minutes
            if since == LOG_EVERY or save:
                loss = total.item() / since
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss} at step {self.step}; try a lower learning_rate"
                    )
                now = time.perf_counter()
                self.elapsed_s, last = self.elapsed_s + now - last, now
                rate = since * self.config.batch_size / (now - since_time)
                yield self._record(loss=loss, samples_per_s=rate)
                total.zero_()
                since, since_time = 0, now
            if save:
                self.save(checkpoint)
                yield self._record(**validate(self))
                # Neither saving nor validation is training time.
                last = saved = since_time = time.perf_counter()

    def train_step(self, frames: Frames) -> Tensor:
        """Take one optimiser step; return the loss as a tensor, without waiting for the GPU."""
        config = self.config
        generator = torch.Generator(self.device).manual_seed(config.seed * 1_000_003 + self.step)
        index = frames.draw(config.batch_size, generator)
        prefix = self._prefix(frames, index, generator)
        loss = self.loss(prefix, frames.chunks[index], frames.valid[index], generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip_norm)
        rate = schedule(self.progress, config.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.step)
        return loss.detach()

    def encode(self, inputs: dict[str, Tensor]) -> Prefix:
        """Encode observations with training precision; ``inputs`` are those of ``Pi05.prefix``."""
        with torch.no_grad() if self.config.freeze_vlm else nullcontext(), self.autocast():
            return self._encode(**inputs)

    def loss(
        self, prefix: Prefix, chunks: Tensor, valid: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of B encoded observations; see ``flow_loss``."""
        drawn = draw_flow(chunks, self.config.draws, generator)
        with self.autocast():
            return self._loss(self.network, prefix, chunks, valid, *drawn, dims=self.dims)

    def autocast(self) -> torch.autocast:
        """Return the autocast context for the configured precision."""
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def fill_features(
        self, frames: Frames, report: Callable[[float], object] = lambda share: None
    ) -> None:
        """Fill the feature store with the frames that fit, if it is configured and not yet filled.

        Frames are always encoded in the same batches: rounding depends on the batch, and a resumed
        run must get the same numbers. ``report`` gets the completed share, from 0 to 1. Raises
        TrainingError if not even one frame fits.
        """
        config = self.config
        if not config.feature_store_gb or self.features is not None:
            return
        store = FeatureStore(config.feature_store_gb)
        total = len(frames) * config.feature_variants
        batches = torch.arange(len(frames), device=self.device).split(config.batch_size)
        for variant, index in product(range(config.feature_variants), batches):
            rows = index + variant * len(frames)
            generator = torch.Generator(self.device).manual_seed(config.seed + int(rows[0]))
            augmentation = config.augmentation if variant else None
            prefix = self.encode(frames.inputs(index, augmentation, generator))
            fits = all([store.put(row, prefix, at) for at, row in enumerate(rows.tolist())])
            if not len(store):
                raise TrainingError(
                    f"not one encoded frame fits into a feature store of "
                    f"{config.feature_store_gb} GB; there are {total}"
                )
            report(min(1.0, int(rows[-1] + 1) / total) if fits else 1.0)
            if not fits:
                break
        self.features = store

    def _prefix(self, frames: Frames, index: Tensor, generator: torch.Generator) -> Prefix:
        config = self.config
        if not config.feature_store_gb:
            return self.encode(frames.inputs(index, config.augmentation, generator))
        self.fill_features(frames)
        rows, augmentation = index, None
        if config.feature_variants > 1:
            random: dict[str, Any] = {"generator": generator, "device": self.device}
            variant = torch.randint(config.feature_variants, index.shape, **random)
            rows, augmentation = index + variant * len(frames), config.augmentation
        assert self.features is not None  # set by fill_features
        return self.features.fetch(
            rows, lambda places: self.encode(frames.inputs(index[places], augmentation, generator))
        )

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights of the whole network, on the CPU, with adapters merged.

        Names and dtypes are those of the network that was given to the trainer.
        """
        with self.average.in_place():
            weights = plain_weights(self.network)
            return {n: w.to("cpu", self._dtypes[n], copy=True) for n, w in weights.items()}

    def _checkpoint(self, path: Path) -> TrainingCheckpoint:
        return TrainingCheckpoint(
            path, self.parameters, self._optimizer, self.average, self._fingerprint
        )

    def save(self, path: Path) -> None:
        """Write the checkpoint, from which a resumed run continues, atomically to one file."""
        self._checkpoint(path).save({"step": self.step, "elapsed_s": self.elapsed_s})

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint; raises the errors of ``TrainingCheckpoint.load``."""
        facts, _ = self._checkpoint(path).load()
        self.step, self.elapsed_s = facts["step"], facts["elapsed_s"]

    def _record(self, **values: float) -> dict[str, float]:
        return {
            "step": self.step,
            "elapsed_s": round(self.elapsed_s, 2),
            "learning_rate": self.learning_rate(),
            **values,
        }


def prepare(network: Pi05, config: TrainConfig) -> Pi05:
    """Prepare a network for training, in place: freeze parts, add adapters, convert to float32."""
    network.requires_grad_(True)
    for part in config.frozen_parts:
        getattr(network, part).requires_grad_(False)
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    if config.lora_rank:
        rank, alpha = config.lora_rank, config.lora_alpha
        add_adapters(network, config.lora_parts, rank=rank, alpha=alpha, seed=config.seed)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained or ".lora_" in name)
        # Frozen weights keep their dtype: it is exact and needs less memory.
        if parameter.requires_grad or config.precision != "bfloat16":
            parameter.data = parameter.data.float()
    network.checkpoint_gradients(config.gradient_checkpointing)
    return network


@torch.no_grad()
def validation(
    trainer: Trainer, frames: Frames, denoise_steps: int, samples: int = 1024
) -> dict[str, float]:
    """Return loss and action error of the averaged weights on held-out frames.

    The action error is the mean absolute difference, in normalised units, between sampled and
    demonstrated actions over the valid steps and the real action dimensions.
    """
    generator = torch.Generator(trainer.device).manual_seed(0)
    losses, errors, weights = [], [], []
    spread = torch.linspace(0, len(frames) - 1, min(samples, len(frames))).long()
    with trainer.average.in_place():
        for index in spread.to(trainer.device).split(256):
            prefix = trainer.encode(frames.inputs(index, None, generator))
            chunks, valid = frames.chunks[index], frames.valid[index]
            weights.append(valid.sum())
            losses.append(trainer.loss(prefix, chunks, valid, generator) * weights[-1])
            noise = torch.randn(chunks.shape, generator=generator, device=trainer.device)
            with trainer.autocast():
                actions = trainer.network.sample(prefix, noise, denoise_steps)
            error = (actions - chunks)[..., : trainer.real_dims].abs().mean(-1)
            errors.append((error * valid).sum())
    loss, error, weight = (torch.stack(column).sum() for column in (losses, errors, weights))
    return {
        "held_out_loss": (loss / weight).item(),
        "held_out_action_error": (error / weight).item(),
    }


def make_optimizer(
    network: nn.Module, parameters: Mapping[str, Tensor], config: TrainConfig
) -> torch.optim.AdamW:
    """Return an optimiser of some of the network's parameters.

    Weight decay acts only on matrices, not on biases, norms and embeddings: with a small data set,
    it would only shrink embedding rows that no sample uses. Each group has its ``peak`` learning
    rate.
    """
    embeddings = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in parameters.items():
        decays = parameter.ndim > 1 and id(parameter) not in embeddings
        groups.setdefault((name.split(".")[0] in VLM_PARTS, decays), []).append(parameter)
    own_rate = config.vlm_learning_rate is not None
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "peak": config.vlm_learning_rate if is_vlm and own_rate else config.learning_rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (is_vlm, decays), members in groups.items()
        ],
        betas=(0.9, 0.95),
        fused=next(iter(parameters.values())).device.type == "cuda",
    )


def schedule(progress: float, warmup: float) -> float:
    """Return the learning rate as a share of its peak, at ``progress`` from 0 to 1."""
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    done = (progress - warmup) / (1 - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))
