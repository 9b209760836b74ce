"""Weights in other projects' layouts, and our own, into the network. Never unpickles."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from z1_ros.errors import CheckpointError
from z1_ros.models.pi05 import Pi05

_VLM = "paligemma_with_expert.paligemma.model."
_VISION = _VLM + "vision_tower.vision_model."
OPENPI_RENAMES = (
    (_VISION + "embeddings.", "vision."),
    (_VISION + "encoder.layers.", "vision.layers."),
    (_VISION + "post_layernorm.", "vision.post_layernorm."),
    (_VLM + "multi_modal_projector.linear.", "projector."),
    (_VLM + "language_model.", "vlm."),
    ("paligemma_with_expert.paligemma.lm_head.", "vlm.embed_tokens."),
    ("paligemma_with_expert.gemma_expert.model.", "expert."),
    ("time_mlp_", "time.time_mlp_"),
    ("action_", "action_"),
)
"""Prefixes of openpi's PyTorch layout and of ours."""
UNUSED = ("paligemma_with_expert.gemma_expert.lm_head.", _VLM + "language_model.norm.")
"""Tensors of that layout that feed nothing."""


def from_openpi(name: str, depth: int) -> str | None:
    """Return our name of one of openpi's tensors, or None if nothing of ours needs it.

    Args:
        name: Key in openpi's ``model.safetensors``.
        depth: Layers of the VLM; of the last one only keys and values are used.

    Raises:
        CheckpointError: The layout has no such key.
    """
    if name.startswith(UNUSED):
        return None
    for theirs, ours in OPENPI_RENAMES:
        if name.startswith(theirs):
            renamed = ours + name.removeprefix(theirs)
            last = f"vlm.layers.{depth - 1}."
            kept = ("self_attn.k_proj.", "self_attn.v_proj.", "input_layernorm.")
            if renamed.startswith(last) and not renamed.removeprefix(last).startswith(kept):
                return None
            return renamed
    raise CheckpointError(f"tensor {name!r} belongs to no π0.5 layout that is known here")


def load_openpi(path: str | Path, network: Pi05) -> None:
    """Load a checkpoint in openpi's PyTorch layout into ``network``.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another shape.
    """
    depth = network.geometry.depth
    tensors: dict[str, Tensor] = {}
    # ``embed_tokens`` sorts after ``lm_head`` and so wins where both exist: lm_head is then stale.
    for name, tensor in sorted(read_tensors(path).items(), key=lambda kv: "lm_head" not in kv[0]):
        ours = from_openpi(name, depth)
        if ours is not None:
            tensors[ours] = tensor
    assign(network, tensors, str(path))


def load_weights(path: str | Path, network: Pi05) -> None:
    """Load a bundle's ``model.safetensors``; raises CheckpointError where it does not fit."""
    assign(network, read_tensors(path), str(path))


def assign(network: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the network; the set of names and every shape must be equal."""
    own = network.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or extra:
        raise CheckpointError(
            f"{source} does not fit the network: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(extra)} unknown {extra[:3]}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, the network's geometry "
                f"needs {tuple(own[name].shape)}"
            )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file; raises CheckpointError if it is none."""
    try:
        with safe_open(path, "pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def read_facts(path: str | Path) -> dict[str, object]:
    """Read the JSON object stored beside the tensors by ``write_tensors``."""
    with safe_open(path, "pt") as stream:
        return json.loads((stream.metadata() or {}).get("facts", "{}"))


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object] | None = None
) -> None:
    """Write tensors, and facts as JSON, to one safetensors file, atomically."""
    path = Path(path)
    partial = path.with_name(path.name + ".tmp")
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    save_file(plain, partial, metadata={"facts": json.dumps(facts)} if facts else None)
    partial.chmod(0o644)  # safetensors makes files that nobody else can read
    partial.replace(path)
