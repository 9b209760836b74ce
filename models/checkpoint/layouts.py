"""Names and shapes of π0.5's weights in the published layouts and in that of z1_ros.

Three layouts are in use: openpi's PyTorch port, also used by LeRobot's published base model;
LeRobot's saved policies, with ``model.`` before the same names; and the bundles of z1_ros.
The published layouts contain unused weights, which z1_ros neither needs nor keeps.
Source: openpi ``src/openpi/models_pytorch/pi0_pytorch.py``, LeRobot ``policies/pi05``; transformers
writes SigLIP's names with ``vision_model.`` before 5.6 and without it since.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from z1_ros.errors import CheckpointError
from z1_ros.models.network.geometry import FULL, Geometry

_PALIGEMMA = "paligemma_with_expert.paligemma."
_VISION = _PALIGEMMA + "model.vision_tower."
_NESTED = _VISION + "vision_model."
_RENAMES = (
    (_VISION, "vision."),
    (_PALIGEMMA + "model.multi_modal_projector.linear.", "projector."),
    (_PALIGEMMA + "lm_head.", "vlm.lm_head."),
    (_PALIGEMMA + "model.language_model.", "vlm."),
    ("paligemma_with_expert.gemma_expert.lm_head.", "expert.lm_head."),
    ("paligemma_with_expert.gemma_expert.model.", "expert."),
    ("time_mlp_", "time.time_mlp_"),
    ("action_in_proj.", "action_in_proj."),
    ("action_out_proj.", "action_out_proj."),
)
"""Prefixes in openpi's layout and in that of z1_ros; the longer of two prefixes comes first."""
_LAYER = re.compile(r"(?:language_model|gemma_expert\.model|^expert)\.layers\.(\d{1,9})\.")
_OURS = ("vision.", "projector.", "vlm.", "expert.", "time.", "action_in_proj.", "action_out_proj.")

GOLDEN_KINDS = ("in.", "mid.", "out.", "grad.")
"""Prefixes of the names of golden data, which are not weights."""
EMBEDDING = "vlm.embed_tokens.weight"
HEAD = "vlm.lm_head.weight"
"""The text head: the embedding if a file has no other, otherwise an outdated copy of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Naming of the weights in one file."""

    name: str
    """``openpi``, ``lerobot`` or ``z1_ros``."""
    depth: int
    """Layers of the VLM; the last layer is used only for keys and values."""
    nested_vision: bool = True
    """Whether SigLIP's names contain ``vision_model.``."""

    def ours(self, key: str) -> str | None:
        """Return the name in z1_ros of the file's ``key``, None if the layout has no such key."""
        if self.name == "z1_ros":
            return key if key.startswith(_OURS) else None
        prefix = "model." if self.name == "lerobot" else ""
        own = key.removeprefix(prefix)
        return from_openpi(own, self.depth) if key.startswith(prefix) else None

    def theirs(self, name: str) -> str:
        """Return the file's key of the weight ``name`` of z1_ros."""
        if self.name == "z1_ros":
            return name
        key = to_openpi(name, self.depth)
        if not self.nested_vision:
            key = key.replace(_NESTED, _VISION)
        return f"model.{key}" if self.name == "lerobot" else key


def from_openpi(key: str, depth: int) -> str | None:
    """Return the name in z1_ros of a key of openpi's, None if its layout has no such key.

    Unused weights have names too, see ``is_unused``. ``depth`` is the number of the VLM's layers.
    """
    key = key.replace(_NESTED, _VISION)
    for theirs, ours in _RENAMES:
        if key.startswith(theirs):
            name = ours + key.removeprefix(theirs)
            for kept in ("self_attn.k_proj.", "self_attn.v_proj.", "input_layernorm."):
                whole = f"vlm.layers.{depth - 1}.{kept}"
                name = name.replace(whole, f"vlm.last.{kept.removeprefix('self_attn.')}")
            return name
    return None


def to_openpi(name: str, depth: int) -> str:
    """Return openpi's key of a name in z1_ros; SigLIP's names contain ``vision_model.``."""
    if name.startswith("vlm.last."):
        kept = name.removeprefix("vlm.last.")
        block = "" if kept.startswith("input_layernorm.") else "self_attn."
        name = f"vlm.layers.{depth - 1}.{block}{kept}"
    for theirs, ours in _RENAMES:
        if name.startswith(ours):
            return theirs.replace(_VISION, _NESTED) + name.removeprefix(ours)
    raise ValueError(f"{name!r} is no name of a weight")


def is_unused(name: str, depth: int) -> bool:
    """Return whether a weight is unused: text heads, final norm, the last layer after its keys."""
    last = f"vlm.layers.{depth - 1}."
    return name.startswith(("vlm.lm_head.", "expert.lm_head.", "vlm.norm.", last))


def find_layout(keys: Iterable[str], source: str) -> Layout:
    """Return the layout that the keys of ``source`` have; CheckpointError if it is not π0.5's."""
    keys = set(keys)
    _refuse_gaps(keys, source)
    depth = 1 + max((int(found[1]) for key in keys if (found := _LAYER.search(key))), default=0)
    if any(k.startswith("model.paligemma_with_expert.") for k in keys):
        name = "lerobot"
    elif any(k.startswith("paligemma_with_expert.") for k in keys):
        name = "openpi"
    elif any(k.startswith(("vlm.", "expert.")) for k in keys):
        name = "z1_ros"
    else:
        some = ", ".join(sorted(keys)[:3]) or "nothing at all"
        raise CheckpointError(
            f"{source} is no π0.5 checkpoint: it holds {some}; expected are weights named "
            "paligemma_with_expert.… (openpi), model.paligemma_with_expert.… (LeRobot) or "
            "vlm.… (z1_ros)"
        )
    return Layout(name=name, depth=depth, nested_vision=any("vision_model." in k for k in keys))


def _refuse_gaps(keys: set[str], source: str) -> None:
    """Raise CheckpointError if most of the layers below the highest number are missing.

    The highest layer number determines how many layers are built.
    """
    stacks: defaultdict[str, set[int]] = defaultdict(set)
    for key in keys:
        stack, _, rest = key.partition("layers.")
        number = rest.partition(".")[0]
        if rest and number.isdecimal():
            stacks[stack].add(int(number) if len(number) < 10 else 10**9)
    for stack, numbers in stacks.items():
        if max(numbers) >= 2 * len(numbers):
            raise CheckpointError(
                f"{source} names layer {max(numbers)} of {stack}layers, but only "
                f"{len(numbers) - 1} of the layers below it"
            )


def refuse_relatives(keys: Iterable[str], source: str) -> None:
    """Raise CheckpointError if the names are those of a related model, for example π0."""
    keys = set(keys)
    if any(".lora_A." in key for key in keys):
        raise CheckpointError(
            f"{source} holds LoRA adapters; merge them into their base model and give that"
        )
    has_time = any(key.removeprefix("model.").startswith("time_mlp_") for key in keys)
    if not has_time and any("state_proj." in key or "action_time_mlp_" in key for key in keys):
        raise CheckpointError(
            f"{source} is a π0 checkpoint (it has state_proj or action_time_mlp weights); only "
            "π0.5 is supported, whose actions are conditioned through time_mlp and adaRMS"
        )
    has_vlm = any("language_model." in key for key in keys)
    if has_vlm and not any("expert." in key.replace("with_expert.", "") for key in keys):
        raise CheckpointError(
            f"{source} has no action expert: it is a π0-FAST or PaliGemma checkpoint; only π0.5 "
            "is supported"
        )
    if any(key.startswith(GOLDEN_KINDS) for key in keys):
        raise CheckpointError(f"{source} holds golden data of a parity test, not a checkpoint")


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
