"""Demonstrations in memory: every frame with its prompt and action chunk; drawing of batches.

All images are in one uint8 tensor, on the GPU if they fit; they are augmented on the same device.
"""

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from z1_ros.errors import ConfigError
from z1_ros.learning.sft.demos import read_episode, read_header, read_outcomes
from z1_ros.models.bundle.manifest import Normalization, NormStats
from z1_ros.models.bundle.tokenizer import PAD_ID, PromptTokenizer
from z1_ros.policy.transforms import (
    normalize,
    normalize_state,
    one_hemisphere,
    state_bins,
    stats_of,
)
from z1_ros.specs import Contract, Field, embodiment

Episode = tuple[str, int, str]
"""Task, scene seed and instruction."""
MIN_VALID = 4
"""Smallest number of undisturbed steps after a frame; frames with fewer are not used."""
RARELY_MOVING = 0.2
"""Smallest share of the 1-99 % range in the full range; below it, the full range is used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Random changes of training images; 0 disables a change."""

    shift_px: int = 4
    """Largest shift along each axis [px]."""
    brightness: float = 0.15
    """Largest change of brightness, as a fraction of white."""
    contrast: float = 0.25
    """Largest relative change of contrast."""
    colour: float = 0.25
    """Largest relative change of saturation and of each colour channel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """Training samples of several tasks; each task's samples are contiguous."""

    images: Tensor
    """Images (F, cameras, size, size, 3) uint8."""
    tokens: Tensor
    """Prompt tokens (F, L) int32, padded with 0."""
    chunks: Tensor
    """Normalised actions as labels (F, horizon, action_dim) float32; 0 in padding dimensions."""
    valid: Tensor
    """Label steps without a disturbance since the frame (F, horizon) bool."""
    starts: Tensor
    """Index of the first sample of each task (tasks,) int64."""
    counts: Tensor
    """Number of samples of each task (tasks,) int64."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Frames":
        """Move everything to a device; images only if they need less than half its free memory."""
        limit = torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else math.inf
        names = [f.name for f in fields(self) if f.name != "images" or self.images.nbytes < limit]
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw sample indices (batch,); all tasks are equally likely."""
        random: dict[str, Any] = {"generator": generator, "device": generator.device}
        task = torch.randint(len(self.counts), (batch,), **random)
        within = torch.rand(batch, dtype=torch.float64, **random) * self.counts[task]
        return self.starts[task] + within.long().minimum(self.counts[task] - 1)

    def inputs(
        self, index: Tensor, augmentation: Augmentation | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the network's inputs for samples ``index`` (B,), augmented if configured."""
        images = self._pixels(index, augmentation.shift_px if augmentation else 0, generator)
        scaled = images.movedim(-1, 2).float() / 255
        if augmentation:
            scaled = jitter_colours(scaled, augmentation, generator)
        tokens = self.tokens[index].long()
        return {
            "images": scaled * 2 - 1,
            "image_mask": torch.ones(images.shape[:2], dtype=torch.bool, device=images.device),
            "tokens": tokens,
            "token_mask": tokens != PAD_ID,
        }

    def _pixels(self, index: Tensor, shift: int, generator: torch.Generator) -> Tensor:
        """Return images (B, cameras, size, size, 3), shifted at random; borders are repeated."""
        if not shift:
            at = index.to(self.images.device)
            return self.images[at].to(index.device, non_blocking=True)
        cameras, size = self.images.shape[1:3]
        on: dict[str, Any] = {"device": generator.device}
        shape = (2, len(index), cameras, 1)
        offset = torch.randint(-shift, shift + 1, shape, generator=generator, **on)
        rows, columns = (torch.arange(size, **on) + offset).clamp(0, size - 1)
        place = (
            index[:, None, None, None],
            torch.arange(cameras, **on)[None, :, None, None],
            rows[..., :, None],
            columns[..., None, :],
        )
        there = tuple(part.to(self.images.device) for part in place)
        return self.images[there].to(index.device, non_blocking=True)


def jitter_colours(images: Tensor, amount: Augmentation, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and colour of images (B, cameras, 3, size, size) in [0, 1]."""

    def draw(spread: float, channels: int) -> Tensor:
        shape = (*images.shape[:2], channels, 1, 1)
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        return (2 * uniform - 1) * spread

    grey = images.mean(2, keepdim=True)
    images = grey + (images - grey) * (1 + draw(amount.colour, 1))
    images = images * (1 + draw(amount.colour / 2, 3))
    middle = images.mean((2, 3, 4), keepdim=True)
    images = middle + (images - middle) * (1 + draw(amount.contrast, 1))
    return (images + draw(amount.brightness, 1)).clamp(0, 1)


def split_seeds(
    directory: Path, tasks: Sequence[str], held_out: float
) -> tuple[list[Episode], list[Episode]]:
    """Split the successful episodes into training and held-out ones."""
    train, held = [], []
    for task in tasks:
        won = [o for o in read_outcomes(directory, task) if o["success"]]
        if len(won) < 2:
            raise ConfigError(f"{directory} has {len(won)} successful episodes of {task}; need 2")
        cut = len(won) - max(1, round(held_out * len(won)))
        episodes = [(task, o["seed"], o["instruction"]) for o in won]
        train += episodes[:cut]
        held += episodes[cut:]
    return train, held


def fit_normalization(
    directory: Path, episodes: Sequence[Episode], contract: Contract
) -> Normalization:
    """Return quantiles, means and standard deviations of the episodes' states and actions."""
    header = read_header(directory)
    state_at = columns(header["state"], contract.state)
    action_at = columns(header["action"], contract.action)
    with ThreadPoolExecutor() as pool:
        stored = list(
            pool.map(lambda e: read_episode(directory, e[0], e[1], ("state", "actions")), episodes)
        )
    state = np.concatenate([s["state"][:, state_at] for s in stored])
    return Normalization(
        mode="quantile",
        state=guarded_stats(one_hemisphere(state, contract.state)),
        action=guarded_stats(np.concatenate([s["actions"][:, action_at] for s in stored])),
    )


def guarded_stats(values: np.ndarray) -> NormStats:
    """Return statistics; for dimensions that rarely move, the quantiles are the full range.

    Otherwise such a dimension, for example a rotation that only one task needs, would count as
    constant, or its normalised values would be far outside [-1, 1].
    """
    stats = stats_of(values)
    low, high = values.min(0), values.max(0)
    narrow = np.subtract(stats.q99, stats.q01) < RARELY_MOVING * (high - low)
    q01, q99 = np.where(narrow, (low, high), (stats.q01, stats.q99)).astype(np.float32).tolist()
    return replace(stats, q01=tuple(q01), q99=tuple(q99))


def columns(stored: Sequence[dict[str, Any]], wanted: Sequence[Field]) -> list[int]:
    """Return the columns of fields in the stored vectors that part of a header describes."""
    names = [f"{field['name']}.{dim}" for field in stored for dim in field["dims"]]
    return [names.index(name) for field in wanted for name in field.dim_names]


def load_frames(
    directory: Path,
    episodes: Sequence[Episode],
    contract: Contract,
    normalization: Normalization,
    tokenizer: PromptTokenizer,
    action_dim: int,
    discrete_state: bool = True,
) -> Frames:
    """Read successful episodes, sorted by task, into memory.

    Dimensions of ``action_dim`` beyond the contract are padding. With ``discrete_state``, prompts
    contain the state. Raises ConfigError if no frame is usable or an action does not fit.
    """
    if len(contract.action_dims) > action_dim:
        raise ConfigError(
            f"{directory} has actions of {len(contract.action_dims)} dimensions, the network "
            f"gives {action_dim}"
        )
    header = read_header(directory)
    state_at = columns(header["state"], contract.state)
    action_at = columns(header["action"], contract.action)
    robot = embodiment(header["embodiment"])
    form = normalization.form
    action_mode = normalization.mode_of_actions

    def cut(task: str, seed: int, instruction: str) -> tuple[np.ndarray, ...]:
        """Return the indices of the used frames, and their tokens, chunks and validity."""
        stored = read_episode(
            directory, task, seed, ("actions", "frame_steps", "disturbed", "state")
        )
        actions, frames = stored["actions"], stored["frame_steps"]
        valid = undisturbed(stored["disturbed"], frames, contract.horizon)
        used = np.flatnonzero(valid.sum(1) >= min(MIN_VALID, contract.horizon))
        hold = np.tile(robot.hold_action(actions[-1]), (contract.horizon, 1))
        held = np.concatenate([actions, hold])[:, action_at]
        scaled = normalize(held, normalization.action, action_mode, form)
        chunks = np.zeros((len(used), contract.horizon, action_dim), np.float32)
        window = frames[used, None] + np.arange(contract.horizon)
        chunks[..., : scaled.shape[1]] = scaled[window]
        bins: Iterable[Sequence[int] | None] = [None] * len(used)
        if discrete_state:
            state = stored["state"][used][:, state_at]
            bins = state_bins(normalize_state(state, contract.state, normalization)).tolist()
        prompts = [tokenizer.encode(instruction, each)[0] for each in bins]
        tokens = np.asarray(prompts, np.int32).reshape(-1, tokenizer.max_tokens)
        return used, tokens, chunks, valid[used]

    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda episode: cut(*episode), episodes))
    used, *small = (list(column) for column in zip(*parts, strict=True))
    counts: dict[str, int] = {}
    for (task, _, _), chosen in zip(episodes, used, strict=True):
        counts[task] = counts.get(task, 0) + len(chosen)
    if not all(counts.values()):
        raise ConfigError(f"{directory}: no usable frames for some task: {counts}")
    cameras = [header["cameras"].index(camera) for camera in contract.cameras]
    sizes = torch.tensor(list(counts.values()))
    tokens, chunks, valid = (torch.from_numpy(np.concatenate(column)) for column in small)
    return Frames(
        images=_load_images(directory, episodes, used, cameras, header["image_size"]),
        tokens=tokens,
        chunks=chunks,
        valid=valid,
        starts=sizes.cumsum(0) - sizes,
        counts=sizes,
    )


def _load_images(
    directory: Path,
    episodes: Sequence[Episode],
    used: Sequence[np.ndarray],
    cameras: list[int],
    size: int,
) -> Tensor:
    """Read the used images directly into one tensor, because they need most of the memory."""
    ends = np.cumsum([len(chosen) for chosen in used])
    images = torch.empty((int(ends[-1]), len(cameras), size, size, 3), dtype=torch.uint8)
    filled = images.numpy()

    def fill(episode: Episode, chosen: np.ndarray, end: int) -> None:
        stored = read_episode(directory, *episode[:2], ("images",))["images"]
        filled[end - len(chosen) : end] = stored[chosen[:, None], cameras]

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, episodes, used, ends))
    return images


def undisturbed(disturbed: np.ndarray, frames: np.ndarray, horizon: int) -> np.ndarray:
    """Return the label steps that have no disturbance between their frame and them.

    The expert's action at t + k depends on the state at t + k. If noise was executed in between, a
    policy that observes frame t cannot predict this action. ``disturbed`` (T,) bool is given for
    each control step, ``frames`` (F,) are control steps; the result is (F, horizon) bool.
    """
    calm = np.concatenate([disturbed, np.zeros(horizon, bool)])
    pushed = np.cumsum(calm[frames[:, None] + np.arange(horizon)], axis=1)
    before = np.concatenate([np.zeros((len(frames), 1), pushed.dtype), pushed[:, :-1]], axis=1)
    return before == 0
