"""Golden data: one batch of inputs with the results of another implementation of π0.5."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from z1_ros.errors import CheckpointError
from z1_ros.files import parse_json
from z1_ros.models.checkpoint.layouts import GOLDEN_KINDS
from z1_ros.models.checkpoint.loading import open_weights, read_tensors

_SIZES = {
    "vlm_width": ("vlm", "width"),
    "vlm_mlp": ("vlm", "mlp_dim"),
    "depth": ("vlm", "depth"),
    "heads": ("vlm", "num_heads"),
    "kv_heads": ("vlm", "num_kv_heads"),
    "head_dim": ("vlm", "head_dim"),
    "expert_width": ("exp", "width"),
    "expert_mlp": ("exp", "mlp_dim"),
    "vision_width": ("vis", "hidden_size"),
    "vision_mlp": ("vis", "intermediate_size"),
    "vision_depth": ("vis", "num_hidden_layers"),
    "vision_heads": ("vis", "num_attention_heads"),
    "vocab": ("vocab",),
    "image_size": ("image",),
    "action_dim": ("action_dim",),
}
"""Name of a size in ``Geometry`` -> path in the metadata ``geom``."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Content of a golden file."""

    path: Path
    tensors: Mapping[str, Tensor]
    """``in.*``, intermediates ``mid.*``, outputs ``out.*``, gradients ``grad.*``."""
    precision: str
    """Precision of the computation, ``float32`` if the file does not state it."""
    sizes: Mapping[str, int]
    """Sizes in the metadata or from the shapes, by the names in ``Geometry``."""
    without_gradient: tuple[str, ...]
    """Parameters without a gradient in the other implementation, by openpi's names."""

    def __getitem__(self, key: str) -> Tensor:
        """Return a tensor; floating-point numbers as float32."""
        tensor = self.tensors[key]
        return tensor.float() if tensor.is_floating_point() else tensor

    @property
    def prefix_inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Arguments of ``Pi05.prefix``."""
        images, image_mask = (
            torch.stack([self[f"in.{kind}{i}"] for i in range(self.sizes["cameras"])], 1)
            for kind in ("image", "img_mask")
        )
        return images, image_mask.bool(), self["in.tokens"].long(), self["in.masks"].bool()


def read_golden(path: Path, inputs: Path | None = None) -> Golden:
    """Read golden data; raises CheckpointError if it is unreadable or lacks inputs.

    From ``inputs``, another golden file, come ``in.*``, and the sizes if ``path`` states none.
    """
    tensors, metadata = read_tensors(path), _read_metadata(path)
    if not any(key.startswith(GOLDEN_KINDS) for key in tensors):
        raise CheckpointError(
            f"{path} holds no golden data (in.*, mid.*, out.*, grad.*); the golden file is named "
            "first, the checkpoint after it"
        )
    geom = _read_json(path, metadata, "geom", dict)
    if inputs is not None:
        others = read_tensors(inputs).items()
        tensors |= {key: value for key, value in others if key.startswith("in.")}
        geom = geom or _read_json(inputs, _read_metadata(inputs), "geom", dict)
    cameras = sum(key.startswith("in.image") for key in tensors)
    needed = ["in.tokens", "in.masks", "in.noise", "in.time", "in.actions"]
    needed += [f"in.{kind}{i}" for i in range(max(1, cameras)) for kind in ("image", "img_mask")]
    if missing := [key for key in needed if key not in tensors]:
        raise CheckpointError(
            f"{inputs or path} lacks {', '.join(missing)}; name the golden file that has the "
            "inputs with --inputs"
        )
    _check_shapes(inputs or path, tensors, cameras)
    sizes = {
        "cameras": cameras,
        "image_size": tensors["in.image0"].shape[-1],
        "prompt_tokens": tensors["in.tokens"].shape[1],
        "horizon": tensors["in.noise"].shape[1],
        "action_dim": tensors["in.noise"].shape[2],
    }
    return Golden(
        path=path,
        tensors=tensors,
        precision=metadata.get("precision", "float32"),
        sizes={**_stated_sizes(path, geom), **sizes},
        without_gradient=tuple(_read_json(path, metadata, "no_grad_params", list)),
    )


def _check_shapes(path: Path, tensors: Mapping[str, Tensor], cameras: int) -> None:
    for key, names in (("in.noise", "BHA"), ("in.tokens", "BL"), ("in.image0", "BCSS")):
        if tensors[key].ndim != len(names):
            raise CheckpointError(f"{path}: {key} has {tensors[key].ndim} dimensions, not {names}")
    batch, *chunk = tensors["in.noise"].shape
    length, side = tensors["in.tokens"].shape[1], tensors["in.image0"].shape[-1]
    expected = {
        "in.actions": (batch, *chunk),
        "in.time": (batch,),
        "in.tokens": (batch, length),
        "in.masks": (batch, length),
        **{f"in.image{i}": (batch, 3, side, side) for i in range(cameras)},
        **{f"in.img_mask{i}": (batch,) for i in range(cameras)},
    }
    if "mid.step_time" in tensors:
        steps = len(tensors["mid.step_time"])
        expected |= {"mid.step_time": (steps, batch), "mid.step_x": (steps, batch, *chunk)}
    for key, shape in expected.items():
        if key in tensors and tuple(tensors[key].shape) != shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(tensors[key].shape)}, the other inputs need "
                f"{shape}"
            )


def _read_metadata(path: Path) -> dict[str, str]:
    with open_weights(path) as stream:
        return stream.metadata() or {}


def _read_json(path: Path, metadata: Mapping[str, str], name: str, kind: type) -> Any:
    if name not in metadata:
        return kind()
    try:
        data = parse_json(metadata[name].encode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata {name!r} is not JSON: {error}") from error
    if not isinstance(data, kind):
        raise CheckpointError(f"{path}: its metadata {name!r} must hold a {kind.__name__}")
    return data


def _stated_sizes(path: Path, geom: dict[str, Any]) -> dict[str, int]:
    sizes = {}
    for name, (*groups, key) in _SIZES.items():
        group = geom
        for part in groups:
            group = group.get(part, {})
        try:
            if key in group:
                sizes[name] = int(group[key])
        except (ValueError, TypeError, OverflowError) as error:
            raise CheckpointError(f"{path}: its metadata 'geom' is malformed: {error}") from error
    return sizes
