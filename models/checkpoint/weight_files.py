"""Finds the safetensors files with a model's weights; other files are refused by their name."""

import re
from pathlib import Path

from z1_ros.errors import CheckpointError
from z1_ros.files import read_json, shown

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_PICKLE = (
    "is a pickle, which can run any code and is never read; convert it to safetensors where it "
    "comes from"
)
_ADAPTER = (
    "holds only a PEFT adapter; merge it into its base model (merge_and_unload) and save that"
)
_JAX = (
    "is a JAX (orbax) checkpoint, which is not read; openpi's "
    f"examples/convert_jax_model_to_pytorch.py converts it to a directory with {WEIGHTS}"
)


def find_weights(path: Path) -> Path:
    """Return the safetensors file of a checkpoint, or the index of a sharded one.

    ``path`` is this file or its directory.

    Raises:
        CheckpointError: The weights are missing or in another format.
    """
    if path.is_dir():
        return _find_in_directory(path)
    if not path.exists():
        raise CheckpointError(
            f"no checkpoint at {path}: expected a .safetensors file or a directory with {WEIGHTS}"
        )
    if path.name == "adapter_model.safetensors":
        raise CheckpointError(f"{path} {_ADAPTER}")
    if path.name.endswith(".index.json"):
        return path
    if path.suffix in _PICKLES:
        raise CheckpointError(f"{path} {_PICKLE}")
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a .safetensors file, the only format that is read")
    if re.search(r"-\d{5}-of-\d{5}\.safetensors$", path.name):
        raise CheckpointError(f"{path} is one shard of several; give its directory {path.parent}")
    return path


def _find_in_directory(path: Path) -> Path:
    names = {entry.name for entry in path.iterdir()}
    for name in (WEIGHTS, INDEX):
        if name in names:
            return path / name
    if names & {"manifest.ocdbt", "_METADATA", "ocdbt.process_0", "params", "_CHECKPOINT_METADATA"}:
        raise CheckpointError(f"{path} {_JAX}")
    if names & {"adapter_model.safetensors", "adapter_config.json"}:
        raise CheckpointError(f"{path} {_ADAPTER}")
    for name in sorted(names):
        if name.endswith((*_PICKLES, ".bin.index.json")):
            raise CheckpointError(f"{path / name} {_PICKLE}")
    found = (*path.glob("*.safetensors"), *(f.parent for f in path.glob(f"*/{WEIGHTS}")))
    hint = f"; did you mean {min(found)}?" if found else ""
    raise CheckpointError(f"{path} has no {WEIGHTS} and no {INDEX}{hint}")


def read_index(path: Path) -> dict[str, str]:
    """Return key -> shard of a sharded checkpoint's index.

    Raises:
        CheckpointError: The index is malformed, or names a missing file or one outside its folder.
    """
    shards = read_json(path).get("weight_map")
    is_map = isinstance(shards, dict) and all(isinstance(s, str) for s in shards.values())
    if not is_map or not shards:
        raise CheckpointError(f"{path} is malformed: weight_map must map keys to file names")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{path} names the shard {shown(shard)}; expected the plain name of a "
                ".safetensors file"
            )
        if not (path.parent / shard).is_file():
            count = sum(s == shard for s in shards.values())
            raise CheckpointError(f"{path.parent} lacks the shard {shard} ({count} tensors)")
    return shards
