"""Loads weights in the layouts of z1_ros and of other projects into the network, without pickle.

A checkpoint must fit exactly: one error lists all missing, unknown and misshaped tensors by the
names in the file.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
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
    count_sizes,
    find_layout,
    is_unused,
    refuse_relatives,
    shape_of,
)
from z1_ros.models.checkpoint.weight_files import INDEX, WEIGHTS, find_weights, read_index
from z1_ros.models.network.geometry import FULL, Geometry
from z1_ros.models.network.pi05 import Pi05

LISTED = 20
"""Number of keys that an error lists of each kind; it states how many more there are."""
KEPT_DTYPES = ("F32", "BF16")
"""Types that are kept. float16 and float64 become float32: π0.5's activations exceed float16."""
DTYPES = (*KEPT_DTYPES, "F16", "F64")
"""Supported types of weights; others, for example quantised weights, are refused."""
READ_DTYPES = (*DTYPES, "I64", "I32", "I16", "I8", "U8", "BOOL")
"""Types of other tensors: golden data, statistics, the state of a run."""
MAX_NUMBERS = 1 << 40
"""Largest number of elements of a tensor; a larger size, also in an empty tensor, is an error."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Location, shape and safetensors type (for example ``BF16``) of one stored weight."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Checkpoint:
    """Names, shapes and types of a model's weights on disk; the weights are not loaded."""

    path: Path
    """Given file or directory."""
    layout: Layout
    stored: tuple[StoredTensor, ...]
    config: ForeignConfig | None

    @property
    def hints(self) -> Mapping[str, int]:
        """Sizes in the ``config.json``, by the names in ``Geometry``."""
        return self.config.sizes if self.config else {}

    @property
    def directory(self) -> Path | None:
        """Folder whose other files describe the weights; None for a single file."""
        return _directory_of(self.path)

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Name in z1_ros -> location, for the weights that the network uses."""
        named, _ = by_name(self.stored, self.layout)
        return {n: stored for n, stored in named.items() if not is_unused(n, self.layout.depth)}

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Sorted types of the weights that the network uses."""
        return tuple(sorted({stored.dtype for stored in self.tensors.values()}))


def describe(path: str | Path, *, with_config: bool = True) -> Checkpoint:
    """Return names, shapes and types of a checkpoint's weights; reads only the file headers.

    Args:
        path: A safetensors file, the index of a sharded one, or the directory of either: a
            checkpoint of openpi's PyTorch port or of LeRobot, or a bundle of z1_ros.
        with_config: Whether to read the ``config.json`` next to the weights as well.

    Raises:
        CheckpointError: The checkpoint is missing, unreadable, or of another model or format.
    """
    path = Path(path).expanduser()
    found = find_weights(path)
    shards = read_index(found) if found.name.endswith(".index.json") else {}
    stored: dict[str, StoredTensor] = {}
    for file in sorted({found.parent / shard for shard in shards.values()}) or [found]:
        with open_weights(file) as stream:
            for key, shape, dtype in _headers(stream, file):
                if shards.get(key, file.name) == file.name:
                    if key in stored:
                        raise CheckpointError(
                            f"{found} does not name {key}, which lies in {stored[key].file.name} "
                            f"and {file.name}"
                        )
                    stored[key] = StoredTensor(file, key, shape, dtype)
    lacking = sorted(shards.keys() - stored.keys())
    if lacking:
        raise CheckpointError(
            f"{found} names {len(lacking)} tensors that its shards lack: {_some(lacking)}"
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
    """Return name in z1_ros -> tensor, also of unused ones, and the unknown or duplicate keys."""
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
    """Return the geometry of a checkpoint; of a damaged one, that which fits most of its tensors.

    Sizes that are ``stated`` have priority over the ``config.json`` next to the weights, which has
    priority over the shapes; ``load_checkpoint`` then reports shapes that differ. Shapes do not
    determine ``vision_heads`` (except at the published width), ``cameras``, ``prompt_tokens`` and
    ``horizon``. They do not distinguish several ``kv_heads`` from a wide one, which is assumed. At
    the published widths the depths are the published ones, so a file without its last layers is
    not read as a smaller network.

    Raises:
        CheckpointError: A size cannot be determined.
    """
    given = {**checkpoint.hints, **stated}
    told = {**_from_shapes(checkpoint, given.get("kv_heads", 1)), **given}
    names = {field.name for field in fields(Geometry)}
    if untold := sorted(names - told.keys()):
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
    """Return a network with the weights of a checkpoint: a path or result of ``describe``.

    The weights are memory-mapped, not copied. A weight uses memory when it is first read, and the
    system can free this memory again until the weight is modified. ``dtype`` is that of
    ``Pi05.cast``; None keeps the type of each tensor.

    Raises:
        CheckpointError: The checkpoint is unreadable or does not fit; the error lists every tensor
            that is missing, unexpected or of another shape.
    """
    checkpoint = source if isinstance(source, Checkpoint) else describe(source)
    network = Pi05.empty(geometry)
    tensors = _fit(checkpoint, network)
    with ExitStack() as stack:
        files = {tensor.file for tensor in tensors.values()}
        streams = {file: stack.enter_context(open_weights(file)) for file in files}
        loaded = {name: streams[t.file].get_tensor(t.key) for name, t in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.dtype not in KEPT_DTYPES:
            loaded[name] = loaded[name].float()
    network.load_state_dict(loaded, assign=True)
    return network if dtype is None else network.cast(dtype)


def load_network(path: str | Path, geometry: Geometry, dtype: torch.dtype | None = None) -> Pi05:
    """Return a network with a bundle's weights, as ``load_checkpoint``; refuses other layouts."""
    checkpoint = describe(path, with_config=False)  # a bundle's manifest has all settings
    if checkpoint.layout.name != "z1_ros":
        raise CheckpointError(
            f"{path} is in the layout of {checkpoint.layout.name}; z1-import makes a bundle of it"
        )
    return load_checkpoint(checkpoint, geometry, dtype)


def _fit(checkpoint: Checkpoint, network: Pi05) -> dict[str, StoredTensor]:
    """Return name in z1_ros -> tensor for the network's weights; raise if they do not fit."""
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
    lists = {"missing": missing, "unexpected": unknown, "of another shape or type": misshaped}
    named = {kind: sorted(names) for kind, names in lists.items()}
    found = [f"{len(some)} {kind}: {_some(some)}" for kind, some in named.items() if some]
    if found:
        raise CheckpointError(f"{source} does not fit the network; tensors {'; '.join(found)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def assign(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a network's; CheckpointError, and no copy, if names or shapes differ."""
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
    """Memory-map a safetensors file on the CPU; raises CheckpointError if it is unreadable."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a regular file")  # opening a pipe would block
    try:
        return safe_open(path, "pt")
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except (SafetensorError, OSError) as error:
        if path.is_file():
            with path.open("rb") as stream:
                if stream.read(40).startswith(b"version https://git-lfs"):
                    raise CheckpointError(
                        f"{path} is a Git LFS pointer, not the file; fetch it with git lfs pull"
                    ) from error
        raise CheckpointError(
            f"{path} is not a readable safetensors file, or cut short: {error}"
        ) from error


def _headers(stream: Any, file: str | Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield name, shape and type of each tensor; raises CheckpointError for impossible ones."""
    for key in stream.keys():  # noqa: SIM118
        if not key.isprintable() or len(key) > MAX_KEY:
            raise CheckpointError(f"{file} names a tensor {shown(key)}")
        view = stream.get_slice(key)
        shape = tuple(view.get_shape())
        if math.prod(max(1, size) for size in shape) > MAX_NUMBERS:
            raise CheckpointError(f"{file} gives {key} the shape {shape}, which is too large")
        yield key, shape, view.get_dtype()


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file; raises CheckpointError if it is unreadable."""
    with open_weights(path) as stream:
        for key, _, dtype in _headers(stream, path):
            if dtype not in READ_DTYPES:
                raise CheckpointError(f"{path} holds {key} in {dtype}, a type that is not read")
        return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118


def read_facts(path: str | Path) -> dict[str, object]:
    """Read the JSON object that ``write_tensors`` stored; CheckpointError if it is malformed."""
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
    """Write tensors, and facts as JSON, to one safetensors file atomically; raises OSError."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with staged_file(Path(path)) as partial:
        try:
            save_file(plain, partial, metadata={"facts": json.dumps(facts)} if facts else None)
        except SafetensorError as error:  # raised by safetensors on a full disk
            raise OSError(f"{path}: {error}") from error
        partial.chmod(0o644)  # by default, other users cannot read safetensors' files
