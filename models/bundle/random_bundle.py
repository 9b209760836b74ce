"""A bundle with random weights, with the sizes, memory and run time of a trained bundle."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from z1_ros.errors import ConfigError
from z1_ros.files import write_text
from z1_ros.models.bundle.manifest import (
    TOKENIZER,
    WEIGHTS,
    Bundle,
    ImageSpec,
    Manifest,
    Normalization,
    NormStats,
    PromptSpec,
)
from z1_ros.models.bundle.task_experts import TaskExpert, is_expert_tensor, weights_file
from z1_ros.models.bundle.tokenizer import small_tokenizer
from z1_ros.models.bundle.writer import write_bundle
from z1_ros.models.checkpoint.loading import write_tensors
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.pi05 import Pi05
from z1_ros.specs import Contract, Embodiment, Field


def write_random_bundle(
    folder: Path,
    geometry: Geometry,
    robot: Embodiment,
    dtype: str,
    seed: int = 0,
    experts: Sequence[str] = (),
) -> Bundle:
    """Write a bundle of untrained weights and the contract of ``robot`` to an empty or new folder.

    Weights are ``bfloat16`` or ``float32``; see ``Pi05.cast`` for the parts that stay float32.
    ``experts`` are the names of task experts; the instruction of each is its name.

    Raises:
        ConfigError: The folder is not empty, or the robot does not fit the geometry.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; choose a new folder")
    if len(robot.cameras) > geometry.cameras or robot.action_dim > geometry.action_dim:
        raise ConfigError(
            f"robot {robot.name!r} has {len(robot.cameras)} cameras and {robot.action_dim} action "
            f"dimensions, the geometry {geometry.cameras} and {geometry.action_dim}"
        )
    contract = Contract(
        cameras=robot.cameras,
        state=robot.state,
        action=tuple(Field(name=f.name, dims=f.dims, unit=f.unit) for f in robot.action),
        control_hz=robot.control_hz,
        horizon=geometry.horizon,
    )
    manifest = Manifest(
        name=folder.name,
        embodiment=robot.name,
        contract=contract,
        image=ImageSpec(size=geometry.image_size, slots=geometry.cameras),
        prompt=PromptSpec(max_tokens=geometry.prompt_tokens),
        normalization=Normalization(
            state=_unit_stats(contract.state_size), action=_unit_stats(robot.action_dim)
        ),
        geometry=asdict(geometry),
        replan_steps=min(8, geometry.horizon),
        experts={name: TaskExpert(instructions=(name,)) for name in experts},
        made_by={"weights": "random", "seed": seed},
    )

    def fill(folder: Path) -> Manifest:
        network = Pi05.empty(geometry).cast(getattr(torch, dtype))
        write_tensors(folder / WEIGHTS, dict(_random_weights(network, seed)))
        for at, name in enumerate(experts, start=1):
            own = (p for p in _random_weights(network, seed + at) if is_expert_tensor(p[0]))
            write_tensors(folder / weights_file(name), dict(own))
        write_text(folder / TOKENIZER, small_tokenizer())
        return manifest

    return write_bundle(folder, fill)


def _random_weights(network: Pi05, seed: int) -> Iterator[tuple[str, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        std = 0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        values = torch.empty(parameter.shape, dtype=parameter.dtype)
        yield name, values.normal_(std=std, generator=random)


def _unit_stats(size: int) -> NormStats:
    minus, zeros, ones = ((value,) * size for value in (-1.0, 0.0, 1.0))
    return NormStats(mean=zeros, std=ones, q01=minus, q99=ones)
