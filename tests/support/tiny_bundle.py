"""A model bundle of a tiny geometry with random weights, made in a moment."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.manifests import stats

from z1_ros.models.bundle.manifest import (
    TOKENIZER,
    WEIGHTS,
    Bundle,
    ImageSpec,
    Manifest,
    Normalization,
    PromptSpec,
    write_manifest,
)
from z1_ros.models.bundle.tokenizer import small_tokenizer
from z1_ros.models.checkpoint.loading import write_tensors
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.pi05 import Pi05
from z1_ros.specs import PANDA, Contract, Field
from z1_ros.types import Observation

TINY = Geometry(
    image_size=32,
    patch=16,
    vision_width=16,
    vision_depth=1,
    vision_heads=2,
    vision_mlp=32,
    depth=2,
    head_dim=8,
    vlm_width=16,
    vlm_mlp=32,
    expert_width=16,
    expert_mlp=32,
    vocab=1088,
    prompt_tokens=48,
    horizon=8,
    action_dim=9,
)
STATE = ("end_effector_position_relative", "gripper_qpos")


def tiny_contract() -> Contract:
    """Return a contract with two of the Panda's state fields and all of its actions."""
    return Contract(
        cameras=PANDA.cameras,
        state=tuple(f for f in PANDA.state if f.name in STATE),
        action=tuple(Field(name=f.name, dims=f.dims, unit=f.unit) for f in PANDA.action),
        control_hz=PANDA.control_hz,
        horizon=TINY.horizon,
    )


def observation(stamp_ns: int = 5, **changes: Any) -> Observation:
    """Return random images and state of a Panda."""
    random = np.random.default_rng(0)
    values = {
        "images": {c: random.integers(0, 256, (48, 64, 3), np.uint8) for c in PANDA.cameras},
        "state": {f.name: random.uniform(-1, 1, f.size).astype(np.float32) for f in PANDA.state},
        "instruction": "open the left drawer",
        "stamp_ns": stamp_ns,
    }
    return Observation(**(values | changes))


def write_tiny_bundle(directory: Path) -> Bundle:
    """Write a whole bundle, but for its graphs."""
    directory.mkdir(parents=True)
    network = Pi05(TINY)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 9
            parameter.copy_(torch.randn(parameter.shape, generator=random) * fan_in**-0.5)
    write_tensors(directory / WEIGHTS, network.state_dict())
    (directory / TOKENIZER).write_text(small_tokenizer(), "utf-8")
    contract = tiny_contract()
    manifest = Manifest(
        name=directory.name,
        embodiment=PANDA.name,
        contract=contract,
        image=ImageSpec(size=TINY.image_size, slots=TINY.cameras),
        prompt=PromptSpec(max_tokens=TINY.prompt_tokens),
        normalization=Normalization(
            state=stats(contract.state_size), action=stats(len(contract.action_dims))
        ),
        geometry=asdict(TINY),
        denoise_steps=3,
        replan_steps=4,
    )
    return write_manifest(directory, manifest)
