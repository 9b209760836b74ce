"""The shape of every weight as a function of the network's sizes, and the inverse."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from z1_ros.models.network.geometry import FULL, Geometry


def _gemma_layers(part: str) -> dict[str, tuple[str, ...]]:
    layer, width, mlp = f"{part}.layers.#.", f"{part}_width", f"{part}_mlp"
    return {
        layer + "self_attn.q_proj": ("queries", width),
        layer + "self_attn.k_proj": ("keys", width),
        layer + "self_attn.v_proj": ("keys", width),
        layer + "self_attn.o_proj": (width, "queries"),
        layer + "mlp.gate_proj": (mlp, width),
        layer + "mlp.up_proj": (mlp, width),
        layer + "mlp.down_proj": (width, mlp),
    }


_VISION_LAYER = "vision.encoder.layers.#."
_SHAPES: dict[str, tuple[str, ...]] = {
    "vision.embeddings.patch_embedding": ("vision_width", "colors", "patch", "patch"),
    "vision.embeddings.position_embedding": ("image_tokens", "vision_width"),
    **{
        _VISION_LAYER + f"self_attn.{part}_proj": ("vision_width", "vision_width")
        for part in ("q", "k", "v", "out")
    },
    _VISION_LAYER + "mlp.fc1": ("vision_mlp", "vision_width"),
    _VISION_LAYER + "mlp.fc2": ("vision_width", "vision_mlp"),
    _VISION_LAYER + "layer_norm1": ("vision_width",),
    _VISION_LAYER + "layer_norm2": ("vision_width",),
    "vision.post_layernorm": ("vision_width",),
    "projector": ("vlm_width", "vision_width"),
    "vlm.embed_tokens": ("vocab", "vlm_width"),
    "vlm.lm_head": ("vocab", "vlm_width"),
    "vlm.norm": ("vlm_width",),
    "vlm.layers.#.input_layernorm": ("vlm_width",),
    "vlm.layers.#.post_attention_layernorm": ("vlm_width",),
    "vlm.last.input_layernorm": ("vlm_width",),
    "vlm.last.k_proj": ("keys", "vlm_width"),
    "vlm.last.v_proj": ("keys", "vlm_width"),
    "expert.lm_head": ("vocab", "expert_width"),
    "expert.norm.dense": ("modulation", "expert_width"),
    "expert.layers.#.input_layernorm.dense": ("modulation", "expert_width"),
    "expert.layers.#.post_attention_layernorm.dense": ("modulation", "expert_width"),
    **_gemma_layers("vlm"),
    **_gemma_layers("expert"),
    "time.time_mlp_in": ("expert_width", "expert_width"),
    "time.time_mlp_out": ("expert_width", "expert_width"),
    "action_in_proj": ("expert_width", "action_dim"),
    "action_out_proj": ("action_dim", "expert_width"),
}
"""Module, with ``#`` for a layer number -> size names of its weight; a bias has the first size."""


def sizes_of(name: str) -> tuple[str, ...] | None:
    """Return the size names of the dimensions of a weight; None if the weight is unknown."""
    module, _, kind = re.sub(r"layers\.\d+\.", "layers.#.", name).rpartition(".")
    shape = _SHAPES.get(module)
    if shape is None or kind not in ("weight", "bias"):
        return None
    return shape if kind == "weight" else shape[:1]


def shape_of(name: str, geometry: Geometry) -> tuple[int, ...] | None:
    """Return the shape of a weight in a geometry, also of unused weights; None if unknown."""
    sizes = sizes_of(name)
    values = all_sizes(geometry)
    return None if sizes is None else tuple(values[size] for size in sizes)


def all_sizes(geometry: Geometry) -> dict[str, int]:
    """Return every size that occurs in the shape of a weight."""
    told = {size for shape in _SHAPES.values() for size in shape}
    made = {
        "colors": 3,
        "queries": geometry.heads * geometry.head_dim,
        "keys": geometry.kv_heads * geometry.head_dim,
        "modulation": 3 * geometry.expert_width,
    }
    return made | {size: getattr(geometry, size) for size in told - made.keys()}


def count_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the sizes that follow from the shapes of named weights, by a majority vote.

    With a vote, one tensor of a wrong shape is reported and does not determine a size. In a tie,
    the published size is used, otherwise the first. The published size is also used if the only
    tensor with a size is missing or empty. The names are those of ``all_sizes``, and
    ``vision_depth``, which is counted.
    """
    published = all_sizes(FULL)
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for name, shape in shapes.items():
        sizes = sizes_of(name) or ()
        if len(sizes) == len(shape):
            for size, value in zip(sizes, shape, strict=True):
                if value:
                    votes[size][value] += 1
    counted = {
        size: max(count, key=lambda value: (count[value], value == published[size]))
        for size, count in votes.items()
    }
    layers = (re.match(r"vision\.encoder\.layers\.(\d{1,9})\.", name) for name in shapes)
    depth = 1 + max((int(found[1]) for found in layers if found), default=FULL.vision_depth - 1)
    return {**published, **counted, "vision_depth": depth}
