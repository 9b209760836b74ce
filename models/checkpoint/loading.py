"""Weights in other projects' layouts, and our own, into the network. Never unpickles.

A checkpoint fits exactly or not at all: whatever is missing, unknown or of another shape is
listed in one error, by the names that the file uses.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from z1_ros.errors import CheckpointError
from z1_ros.files import MAX_KEY, parse_json, shown, staged_file
from z1_ros.models.checkpoint.foreign_config import ForeignConfig, read_config
from z1_ros.models.checkpoint.layouts import (
    EMBEDDING,
    HEAD,
    Layout,
    find_layout,
    is_unused,
    refuse_relatives,
)
from z1_ros.models.checkpoint.shapes import count_sizes, shape_of
from z1_ros.models.checkpoint.weight_files import INDEX, WEIGHTS, find_weights, read_index
from z1_ros.models.network.geometry import FULL, Geometry
from z1_ros.models.network.pi05 import Pi05

LISTED = 20
"""Keys that an error lists of each kind; of further ones it gives the number."""
KEPT_DTYPES = ("F32", "BF16")
"""Kept as they are. float16 and float64 become float32: π0.5's activations exceed float16."""
DTYPES = (*KEPT_DTYPES, "F16", "F64")
"""Types of weights; anything else, quantised weights for instance, is refused."""
READ_DTYPES = (*DTYPES, "I64", "I32", "I16", "I8", "U8", "BOOL")
"""Types of other tensors: of golden data, statistics, a run's state."""
MAX_NUMBERS = 1 << 40
"""Numbers of a tensor, also of an empty one, that are worth building anything for."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one weight lies."""

    file: Path
    """Its safetensors file."""
    key: str
    """Its name there."""
    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """Its type as safetensors calls it, ``BF16`` for instance."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights on disk: names, shapes and types, nothing of which is loaded."""

    path: Path
    """File or directory as it was given."""
    layout: Layout
    """How the names are spelled."""
    stored: tuple[StoredTensor, ...]
    """Every tensor of the files."""
    config: ForeignConfig | None
    """What the ``config.json`` beside the weights states, if there is one."""

    @property
    def hints(self) -> Mapping[str, int]:
        """Sizes that the ``config.json`` states, by ``Geometry``'s names."""
        return self.config.sizes if self.config else {}

    @property
    def directory(self) -> Path | None:
        """The folder whose other files speak of these weights; None for a bare file."""
        return _directory_of(self.path)

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Our name -> where the weight lies, of those that the network has use for."""
        named, _ = by_name(self.stored, self.layout)
        return {n: stored for n, stored in named.items() if not is_unused(n, self.layout.depth)}

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Types of the weights that are used, sorted."""
        return tuple(sorted({stored.dtype for stored in self.tensors.values()}))


def describe(path: str | Path, *, with_config: bool = True) -> Checkpoint:
    """Read what a checkpoint is, from its files' headers alone.

    Args:
        path: A safetensors file, the index of a sharded one, or the directory of either: a
            checkpoint of openpi's PyTorch port or of LeRobot, or one of our bundles.
        with_config: Read the ``config.json`` beside the weights as well.

    Raises:
        CheckpointError: There is none, it is unreadable, or of another model or format.
    """
    path = Path(path).expanduser()
    files = find_weights(path)
    index = path / INDEX if path.is_dir() and files[0].name != WEIGHTS else path
    shards = read_index(index) if index.name.endswith(".index.json") else {}
    stored: dict[str, StoredTensor] = {}
    for file in files:
        with open_weights(file) as stream:
            for key, shape, dtype in _headers(stream, file):
                if shards.get(key, file.name) == file.name:
                    if key in stored:
                        raise CheckpointError(
                            f"{index} does not name {key}, which lies in {stored[key].file.name} "
                            f"and {file.name}"
                        )
                    stored[key] = StoredTensor(file, key, shape, dtype)
    lacking = sorted(shards.keys() - stored.keys())
    if lacking:
        raise CheckpointError(
            f"{index} names {len(lacking)} tensors that its shards lack: {_some(lacking)}"
        )
    refuse_relatives(stored, str(path))
    directory = _directory_of(path)
    config = read_config(directory) if directory and with_config else None
    layout = find_layout(stored, str(path))
    return Checkpoint(path, layout, tuple(stored.values()), config)


def _directory_of(path: Path) -> Path | None:
    if path.is_dir():
        return path
    return path.parent if path.name in (WEIGHTS, INDEX) else None


def by_name(
    stored: Iterable[StoredTensor], layout: Layout
) -> tuple[dict[str, StoredTensor], list[str]]:
    """Return our name -> tensor, unused ones included, and the keys that are unknown or twice."""
    named: dict[str, StoredTensor] = {}
    unknown = []
    for tensor in stored:
        name = layout.ours(tensor.key)
        if name is None or name in named:
            unknown.append(tensor.key)
        else:
            named[name] = tensor
    if EMBEDDING not in named and HEAD in named:
        named[EMBEDDING] = named.pop(HEAD)
    return named, unknown


def infer_geometry(checkpoint: Checkpoint, **stated: int) -> Geometry:
    """Return the geometry of a checkpoint.

    Args:
        checkpoint: From ``describe``.
        stated: Sizes by ``Geometry``'s names. They win over the ``config.json`` beside the
            weights, and that over the shapes, which ``load_checkpoint`` then finds to differ.
            Shapes do not tell ``vision_heads`` (except at the published width), ``cameras``,
            ``prompt_tokens`` and ``horizon``, nor set several ``kv_heads`` apart from a wide one,
            which is assumed. At the published widths the depths are the published ones, so that
            a file that lost its last layers is not taken for a shallower network.

    Returns:
        The geometry; of a broken checkpoint the one that most of its tensors fit.

    Raises:
        CheckpointError: Nothing tells a size.
    """
    given = {**checkpoint.hints, **stated}
    told = {**_from_shapes(checkpoint, given.get("kv_heads", 1)), **given}
    names = {field.name for field in fields(Geometry)}
    untold = sorted(names - told.keys())
    if untold:
        raise CheckpointError(
            f"{checkpoint.path} does not tell {', '.join(untold)}: neither the shapes of its "
            "weights nor a configuration beside them do, so pass "
            + " and ".join(f"--{name.replace('_', '-')}" for name in untold)
        )
    return Geometry(**{**{name: told[name] for name in names}, **stated})


def _from_shapes(checkpoint: Checkpoint, kv_heads: int) -> dict[str, int]:
    named, _ = by_name(checkpoint.stored, checkpoint.layout)
    depth = checkpoint.layout.depth
    used_first = sorted(named, key=lambda name: is_unused(name, depth))
    sizes = count_sizes({name: named[name].shape for name in used_first})
    head_dim = max(1, sizes["keys"] // max(1, kv_heads))
    sizes |= {
        "depth": depth,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "heads": sizes["queries"] // head_dim,
        "image_size": math.isqrt(sizes["image_tokens"]) * sizes["patch"],
    }
    if sizes["vision_width"] == FULL.vision_width:
        sizes |= {"vision_heads": FULL.vision_heads, "vision_depth": FULL.vision_depth}
    if sizes["vlm_width"] == FULL.vlm_width:
        sizes["depth"] = FULL.depth
    return sizes


def load_checkpoint(
    source: str | Path | Checkpoint, geometry: Geometry, dtype: torch.dtype | None = None
) -> Pi05:
    """Return a network with a checkpoint's weights.

    Each weight is taken once, from the file mapped into memory: it costs memory when it is read,
    and that memory is the system's to take back until the weight is written.

    Args:
        source: A path as for ``describe``, or what that returned.
        geometry: Sizes of the network.
        dtype: Type of the weights, see ``Pi05.cast``; None keeps each tensor's own.

    Raises:
        CheckpointError: There is no readable checkpoint, or it does not fit; the error lists
            every tensor that is missing, unexpected or of another shape.
    """
    checkpoint = source if isinstance(source, Checkpoint) else describe(source)
    network = Pi05.empty(geometry)
    tensors = _fit(checkpoint, network)
    loaded: dict[str, Tensor] = {}
    for file in {tensor.file for tensor in tensors.values()}:
        with open_weights(file) as stream:
            for name, tensor in tensors.items():
                if tensor.file == file:
                    values = stream.get_tensor(tensor.key)
                    loaded[name] = values if tensor.dtype in KEPT_DTYPES else values.float()
    network.load_state_dict(loaded, assign=True)
    return network if dtype is None else network.cast(dtype)


def load_network(path: str | Path, geometry: Geometry, dtype: torch.dtype | None = None) -> Pi05:
    """Return a network with the weights of a bundle; arguments and errors as ``load_checkpoint``.

    Raises:
        CheckpointError: Also if the file is in another project's layout.
    """
    checkpoint = describe(path, with_config=False)  # a bundle's manifest says everything
    if checkpoint.layout.name != "z1_ros":
        raise CheckpointError(
            f"{path} is in the layout of {checkpoint.layout.name}; z1-import makes a bundle of it"
        )
    return load_checkpoint(checkpoint, geometry, dtype)


def _fit(checkpoint: Checkpoint, network: Pi05) -> dict[str, StoredTensor]:
    """Return our name -> tensor, exactly those that the network needs, or raise."""
    geometry = network.geometry
    layout = replace(checkpoint.layout, depth=geometry.depth)
    named, unknown = by_name(checkpoint.stored, layout)
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = [layout.theirs(name) for name in own if name not in named]
    if EMBEDDING not in named and layout.name != "z1_ros":
        missing[missing.index(layout.theirs(EMBEDDING))] += f" (or {layout.theirs(HEAD)})"
    misshaped, fitting = [], {}
    for name, tensor in named.items():
        unused = is_unused(name, geometry.depth) and layout.name != "z1_ros"
        expected = own.get(name, shape_of(name, geometry) if unused else None)
        if expected is None:
            unknown.append(tensor.key)
        elif tensor.shape != expected:
            misshaped.append(f"{tensor.key} {tensor.shape} instead of {expected}")
        elif tensor.dtype not in DTYPES:
            misshaped.append(f"{tensor.key} {tensor.dtype} instead of float32 or bfloat16")
        elif not unused:
            fitting[name] = tensor
    _refuse_misfit(str(checkpoint.path), missing, unknown, misshaped)
    return fitting


def _refuse_misfit(
    source: str, missing: Iterable[str], unknown: Iterable[str], misshaped: Iterable[str]
) -> None:
    lists = {
        "missing": sorted(missing),
        "unexpected": sorted(unknown),
        "of another shape or type": sorted(misshaped),
    }
    found = [f"{len(some)} {kind}: {_some(some)}" for kind, some in lists.items() if some]
    if found:
        raise CheckpointError(f"{source} does not fit the network; tensors {'; '.join(found)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def assign(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a network's own; the set of names and every shape must be equal.

    Raises:
        CheckpointError: They are not; nothing was copied then.
    """
    misshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    _refuse_misfit(source, own.keys() - tensors.keys(), tensors.keys() - own.keys(), misshaped)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def open_weights(path: str | Path) -> Any:
    """Return a safetensors file opened on the CPU, memory-mapped; a context manager.

    Raises:
        CheckpointError: There is none, or it is cut short or no safetensors file.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise CheckpointError(f"{path} is not a regular file")  # opening a pipe would wait
    try:
        return safe_open(path, "pt")
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except (SafetensorError, OSError) as error:
        if Path(path).is_file():
            with Path(path).open("rb") as stream:
                if stream.read(40).startswith(b"version https://git-lfs"):
                    raise CheckpointError(
                        f"{path} is a Git LFS pointer, not the file; fetch it with git lfs pull"
                    ) from error
        raise CheckpointError(
            f"{path} is not a readable safetensors file, or cut short: {error}"
        ) from error


def _headers(stream: Any, file: str | Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield name, shape and type of each tensor; raises CheckpointError for what cannot be."""
    for key in stream.keys():  # noqa: SIM118
        if not key.isprintable() or len(key) > MAX_KEY:
            raise CheckpointError(f"{file} names a tensor {shown(key)}")
        view = stream.get_slice(key)
        shape = tuple(view.get_shape())
        if math.prod(max(1, size) for size in shape) > MAX_NUMBERS:
            raise CheckpointError(f"{file} gives {key} the shape {shape}, which is too large")
        yield key, shape, view.get_dtype()


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file; raises CheckpointError if that cannot be."""
    with open_weights(path) as stream:
        for key, _, dtype in _headers(stream, path):
            if dtype not in READ_DTYPES:
                raise CheckpointError(f"{path} holds {key} in {dtype}, a type that is not read")
        return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118


def read_facts(path: str | Path) -> dict[str, object]:
    """Read the JSON object stored beside the tensors by ``write_tensors``.

    Raises:
        CheckpointError: The file is unreadable, or holds no JSON object.
    """
    with open_weights(path) as stream:
        text = (stream.metadata() or {}).get("facts", "{}")
    try:
        facts = parse_json(text.encode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} holds facts that are no JSON: {error}") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} holds facts that are no JSON object: {shown(facts)}")
    return facts


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object] | None = None
) -> None:
    """Write tensors, and facts as JSON, to one safetensors file in one step.

    Raises:
        OSError: It cannot be written.
    """
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with staged_file(Path(path)) as partial:
        try:
            save_file(plain, partial, metadata={"facts": json.dumps(facts)} if facts else None)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(f"{path}: {error}") from error
        partial.chmod(0o644)  # safetensors makes files that nobody else can read
