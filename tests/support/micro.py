"""The micro checkpoint that the golden data was made with, and ways to bend it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import DATA as DATA_ROOT

from z1_ros.errors import CheckpointError
from z1_ros.models.network.geometry import Geometry

DATA = DATA_ROOT / "pi05_micro_float32"
OPENPI = DATA / "openpi.safetensors"
PALIGEMMA = "paligemma_with_expert.paligemma."
EXPERT = "paligemma_with_expert.gemma_expert."
HEAD = PALIGEMMA + "lm_head.weight"
EMBEDDING = PALIGEMMA + "model.language_model.embed_tokens.weight"
UNTOLD = {"vision_heads": 4, "cameras": 3, "prompt_tokens": 48, "horizon": 10}
"""Sizes that the shapes do not tell."""
MICRO = Geometry(
    image_size=56,
    patch=14,
    vision_width=48,
    vision_depth=2,
    vision_mlp=96,
    depth=2,
    head_dim=16,
    vlm_width=64,
    vlm_mlp=128,
    expert_width=32,
    expert_mlp=64,
    vocab=512,
    **UNTOLD,
)


def openpi_weights() -> dict[str, torch.Tensor]:
    """Return weights as openpi's converter writes them: ``lm_head`` alone is the embedding."""
    return load_file(OPENPI)


def as_lerobot(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return openpi's weights as LeRobot saves them again, the text head being stale by then."""
    trained = {**tensors, EMBEDDING: tensors[HEAD], HEAD: tensors[HEAD] * 0.5}
    return {f"model.{key}": tensor for key, tensor in trained.items()}


def saved(tensors: dict[str, torch.Tensor], path: Path, **metadata: str) -> Path:
    """Write tensors and return the path."""
    plain = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    save_file(plain, path, metadata or None)
    return path


def directory_with(directory: Path, name: str, config: Any) -> Path:
    """Put the weights and a file of JSON into a directory and return it."""
    shutil.copy(OPENPI, directory / "model.safetensors")
    (directory / name).write_text(config if isinstance(config, str) else json.dumps(config))
    return directory


def refusal(call: Callable[..., Any], *args: Any) -> str:
    """Return the one sentence with which a call refuses."""
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    text = str(caught.value)
    assert "\n" not in text
    return text
