"""The supervised training loop: flow matching, EMA, exact resume.

Every step draws from a generator seeded by (seed, step), so a run that was killed and resumed
gives the weights of one that was not (on the same machine, with a step budget).
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from z1_ros.errors import ConfigError, TrainingError, closest
from z1_ros.models.checkpoint import assign, read_facts, read_tensors, write_tensors
from z1_ros.models.pi05 import Pi05, draw_time, noisy_actions
from z1_ros.rl.dataset import Augmentation, Frames

PRECISIONS = ("float32", "tf32", "bfloat16")
LOG_EVERY = 50
"""Steps between two looks at the loss; each waits for the GPU."""


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
    """Peak of the schedule: linear warm-up, then a cosine down to 2 % of it."""
    warmup: float = 0.03
    """Part of the budget that is warm-up."""
    weight_decay: float = 0.01
    """AdamW's, on matrices."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones kept."""
    loss_dims: str = "real"
    """``real`` action dimensions (as LeRobot) or ``all``, padding too (as openpi)."""
    freeze_vlm: bool = False
    """Train the action expert only."""
    precision: str = "float32"
    """``float32``, ``tf32`` or ``bfloat16`` (autocast; weights stay float32)."""
    compile: bool = False
    """Compile the loss with torch.compile."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes of training images."""
    checkpoint_minutes: float = 2.0
    """Time between two checkpoints [min]."""
    seed: int = 0
    """Seeds weights, batches and noise."""

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        for name, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("loss_dims", self.loss_dims, ("real", "all")),
        ):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}. {closest(value, known)}")
        if min(self.steps, self.batch_size, self.draws) < 1 or self.minutes < 0:
            raise ConfigError("steps, batch_size and draws must be at least 1, minutes at least 0")
        if not (0 <= self.ema < 1 and 0 <= self.warmup < 1):
            raise ConfigError("ema and warmup must be fractions from 0 to below 1")


def flow_loss(
    network: Pi05,
    inputs: dict[str, Tensor],
    chunks: Tensor,
    valid: Tensor,
    noise: Tensor,
    time: Tensor,
    *,
    freeze_vlm: bool,
    dims: int,
) -> Tensor:
    """Return the flow-matching loss, a scalar.

    Args:
        network: The network.
        inputs: Arguments of ``Pi05.prefix`` for B observations.
        chunks: Normalised actions (B, H, action_dim).
        valid: (B, H) bool, label steps that count.
        noise: (B * draws, H, action_dim); draws of one observation stand in a row.
        time: (B * draws,).
        freeze_vlm: Compute the prefix without gradients.
        dims: Leading action dimensions that count.
    """
    draws = len(noise) // len(chunks)
    with torch.no_grad() if freeze_vlm else nullcontext():
        prefix = network.prefix(**inputs)
    x_t, target = noisy_actions(chunks.repeat_interleave(draws, 0), noise, time)
    velocity = network.denoise(x_t, time, prefix.repeat(draws))
    error = (velocity - target)[..., :dims].square().mean(-1)
    weight = valid.repeat_interleave(draws, 0).float()
    return (error * weight).sum() / weight.sum()


class Trainer:
    """Weights, their average, optimiser and schedule."""

    def __init__(
        self,
        network: Pi05,
        config: TrainConfig,
        real_dims: int,
        device: torch.device,
        identity: dict[str, Any],
    ):
        """Set up a run.

        Args:
            network: Initial weights.
            config: Optimisation.
            real_dims: Action dimensions that are not padding.
            device: Where to train.
            identity: JSON-ready description of everything that shapes the result; a checkpoint
                is resumed only if it has the same.
        """
        self.network = network.to(device)
        self.config = config
        self.device = device
        self.identity = json.loads(json.dumps(identity))
        self.step = 0
        self.elapsed_s = 0.0
        self.dims = real_dims if config.loss_dims == "real" else network.geometry.action_dim
        if config.freeze_vlm:
            for part in (network.vision, network.projector, network.vlm):
                part.requires_grad_(False)
        self._parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.ema = {n: p.detach().clone() for n, p in network.named_parameters()}
        self._optimizer = self._make_optimizer()
        self._loss: Callable[..., Tensor] = (
            torch.compile(flow_loss) if config.compile else flow_loss
        )
        torch.set_float32_matmul_precision("highest" if config.precision == "float32" else "high")

    def _make_optimizer(self) -> torch.optim.AdamW:
        matrices = [p for n, p in self._parameters.items() if p.ndim > 1 and "embed" not in n]
        others = [p for n, p in self._parameters.items() if p.ndim <= 1 or "embed" in n]
        return torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
            fused=self.device.type == "cuda",
        )

    @property
    def progress(self) -> float:
        """Part of the budget that is used up, from 0 to 1."""
        if self.config.minutes:
            return min(1.0, self.elapsed_s / (60 * self.config.minutes))
        return min(1.0, self.step / self.config.steps)

    def learning_rate(self) -> float:
        """Return the schedule's present value."""
        peak, warmup = self.config.learning_rate, self.config.warmup
        if self.progress < warmup:
            return peak * max(self.progress / warmup, 1e-3)
        done = (self.progress - warmup) / (1 - warmup)
        return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))

    def train(
        self, frames: Frames, checkpoint: Path, validate: Callable[["Trainer"], dict[str, float]]
    ) -> Iterator[dict[str, float]]:
        """Train until the budget is used up.

        Yields:
            A log record every ``LOG_EVERY`` steps and after each checkpoint.

        Raises:
            TrainingError: The loss is not finite.
        """
        last = saved = time.perf_counter()
        total, since, since_time = torch.zeros((), device=self.device), 0, last
        while self.progress < 1:
            total += self.train_step(frames)
            since += 1
            now = time.perf_counter()
            self.elapsed_s, last = self.elapsed_s + now - last, now
            over = self.progress >= 1
            if since == LOG_EVERY or over:
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
            if over or now - saved > 60 * self.config.checkpoint_minutes:
                self.save(checkpoint)
                yield self._record(**validate(self))
                # Neither saving nor validation is training time.
                pause = time.perf_counter() - now
                last, saved, since_time = now + pause, now + pause, since_time + pause

    def train_step(self, frames: Frames) -> Tensor:
        """Take one optimiser step; returns the loss without waiting for it."""
        config = self.config
        generator = torch.Generator(self.device).manual_seed(config.seed * 1_000_003 + self.step)
        index = frames.draw(config.batch_size, generator)
        inputs = frames.inputs(index, config.augmentation, generator)
        loss = self._flow_loss(
            self.network, inputs, frames.chunks[index], frames.valid[index], generator
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), config.clip_norm)
        rate = self.learning_rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # A short memory at first, or the average would hold the initial weights for long.
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            averaged = [self.ema[name] for name in self._parameters]
            torch._foreach_lerp_(averaged, list(self._parameters.values()), 1 - decay)
        return loss.detach()

    def _flow_loss(
        self,
        network: Pi05,
        inputs: dict[str, Tensor],
        chunks: Tensor,
        valid: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        count = len(chunks) * self.config.draws
        shape = (count, *chunks.shape[1:])
        noise = torch.randn(shape, generator=generator, device=self.device)
        flow_time = draw_time((count,), generator)
        with self.autocast():
            return self._loss(
                network,
                inputs,
                chunks,
                valid,
                noise,
                flow_time,
                freeze_vlm=self.config.freeze_vlm,
                dims=self.dims,
            )

    def autocast(self) -> torch.autocast:
        """Return the context of the configured precision."""
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def averaged(self) -> Pi05:
        """Return a network with the averaged weights."""
        network = Pi05(self.network.geometry).to(self.device)
        assign(network, self.ema, "averaged weights")
        return network.eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs to one file, atomically."""
        tensors = {f"model.{n}": p for n, p in self.network.named_parameters()}
        tensors |= {f"ema.{n}": p for n, p in self.ema.items()}
        for name, parameter in self._parameters.items():
            state = self._optimizer.state[parameter]
            tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        facts = {"step": self.step, "elapsed_s": self.elapsed_s, "identity": self.identity}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, facts)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            TrainingError: It was made with other settings.
            CheckpointError: It is unreadable or does not fit.
        """
        facts = read_facts(path)
        theirs = facts.get("identity", {})
        for name, value in self.identity.items():
            if theirs.get(name) != value:
                raise TrainingError(
                    f"{path} was made with {name} = {theirs.get(name)}, not {value}; choose "
                    "another run folder or pass --no-resume"
                )
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in read_tensors(path).items():
            kind, _, name = key.partition(".")
            groups.setdefault(kind, {})[name] = tensor.to(self.device)
        assign(self.network, groups["model"], str(path))
        assign(_Named(self.ema), groups["ema"], str(path))
        self.step, self.elapsed_s = facts["step"], facts["elapsed_s"]
        for name, parameter in self._parameters.items():
            on_device = {"device": self.device} if self.device.type == "cuda" else {}
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step), **on_device),
                "exp_avg": groups["exp_avg"][name],
                "exp_avg_sq": groups["exp_avg_sq"][name],
            }

    def _record(self, **values: float) -> dict[str, float]:
        return {
            "step": self.step,
            "elapsed_s": round(self.elapsed_s, 2),
            "learning_rate": self.learning_rate(),
            **values,
        }


@torch.no_grad()
def validation(
    trainer: Trainer, frames: Frames, denoise_steps: int, samples: int = 1024
) -> dict[str, float]:
    """Return loss and action error of the averaged weights on held-out frames.

    The action error is the mean absolute difference, in normalised units, between sampled and
    demonstrated actions over the valid steps.
    """
    network = trainer.averaged()
    generator = torch.Generator(trainer.device).manual_seed(0)
    losses, errors, weights = [], [], []
    spread = torch.linspace(0, len(frames) - 1, min(samples, len(frames))).long()
    for index in spread.to(trainer.device).split(256):
        inputs = frames.inputs(index, None, generator)
        chunks, valid = frames.chunks[index], frames.valid[index]
        loss = trainer._flow_loss(network, inputs, chunks, valid, generator)
        noise = torch.randn(chunks.shape, generator=generator, device=trainer.device)
        with trainer.autocast():
            actions = network.sample(network.prefix(**inputs), noise, denoise_steps)
        error = (actions - chunks)[..., : trainer.dims].abs().mean(-1)
        losses.append(loss * len(index))
        errors.append((error * valid).sum())
        weights.append(valid.sum())
    return {
        "held_out_loss": (sum(losses) / len(spread)).item(),
        "held_out_action_error": (sum(errors) / sum(weights)).item(),
    }


class _Named:
    """Looks like a module to ``assign``."""

    def __init__(self, tensors: dict[str, Tensor]):
        self._tensors = tensors

    def state_dict(self) -> dict[str, Tensor]:
        return self._tensors


def without_schedule(config: TrainConfig) -> TrainConfig:
    """Return the config with what does not shape the weights set to its default."""
    return replace(config, checkpoint_minutes=2.0, compile=False)
