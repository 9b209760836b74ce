"""``z1-import``: a π0.5 checkpoint of openpi or LeRobot as a model bundle.

Everything is checked before the weights are copied, and the bundle is written atomically. Flags
define settings that the checkpoint does not define. All settings are printed and written to the
bundle's model card.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from z1_ros.errors import BundleError, CheckpointError, ConfigError
from z1_ros.files import write_json
from z1_ros.models.bundle.manifest import (
    MANIFEST,
    WEIGHTS,
    Bundle,
    ImageSpec,
    Manifest,
    PromptSpec,
    file_sha256,
    require_replaceable,
)
from z1_ros.models.bundle.parts import Resize
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.models.bundle.writer import versions, write_bundle
from z1_ros.models.checkpoint.loading import (
    Checkpoint,
    describe,
    infer_geometry,
    load_checkpoint,
    write_tensors,
)
from z1_ros.models.importing.config import ImportConfig
from z1_ros.models.importing.modality import Order, choose_order, columns, map_cameras
from z1_ros.models.importing.norm_stats import Stats, read_stats
from z1_ros.models.importing.origin import Origin, read_origin
from z1_ros.models.importing.scaling import Scaling, plan_scaling
from z1_ros.models.importing.tokenizer_source import FILES, PALIGEMMA, fetch_tokenizer
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.pi05 import Pi05
from z1_ros.specs import Contract, check_contract, embodiment

DTYPES = {"keep": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
STATS_BUFFERS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
RESIZE: dict[str, Resize] = {"openpi": "bilinear_antialias", "lerobot": "bilinear"}


def main(config: ImportConfig) -> dict[str, Any]:
    """Import a checkpoint and print the settings; return them as a report."""
    bundle = import_checkpoint(config, Console())
    manifest = bundle.manifest
    decided = {
        "bundle": bundle.sha256,
        "contract": asdict(manifest.contract),
        "image": asdict(manifest.image),
        "prompt": asdict(manifest.prompt),
        "normalization": {
            key: getattr(manifest.normalization, key) for key in ("mode", "action_mode", "form")
        },
        "denoise_steps": manifest.denoise_steps,
        "replan_steps": manifest.replan_steps,
        "geometry": manifest.geometry,
        **manifest.made_by,
    }
    if config.json:
        write_json(config.json, decided)
    return decided


def import_checkpoint(config: ImportConfig, console: Console) -> Bundle:
    """Write a checkpoint as a bundle.

    Raises:
        CheckpointError: The checkpoint or a related file is malformed or not supported.
        ConfigError: A flag is wrong, or a required flag is missing.
        ContractMismatch: The policy does not fit the robot.
        BundleError: The tokenizer is missing, or the bundle cannot be written.
    """
    out = config.out.expanduser().absolute()
    require_replaceable(out)
    if (out / MANIFEST).is_file() and not config.overwrite:
        raise ConfigError(f"there is a bundle at {out} already; pass --overwrite to replace it")
    checkpoint = describe(config.checkpoint)
    if checkpoint.layout.name == "z1_ros":
        raise CheckpointError(f"{checkpoint.path} is in the layout of a bundle already")
    if any(stored.key.startswith(STATS_BUFFERS) for stored in checkpoint.stored):
        raise CheckpointError(
            f"{checkpoint.path} has its statistics inside the weights, as LeRobot had before 0.4: "
            f"convert it with LeRobot's src/lerobot/processor/migrate_policy_normalization.py first"
        )
    origin = read_origin(checkpoint, config.ignored_steps)
    manifest = plan(config, checkpoint, origin, out.name)
    contract, prompt = manifest.contract, manifest.prompt
    network = load_checkpoint(checkpoint, Geometry(**manifest.geometry))

    def fill(folder: Path) -> Manifest:
        name = fetch_tokenizer(_tokenizer_source(config, checkpoint, origin), folder)
        tokenizer = PromptTokenizer(folder / name, prompt.max_tokens, manifest.geometry["vocab"])
        # Raises an error if a prompt cannot hold the longest state.
        tokenizer.encode("", [255] * contract.state_size if prompt.discrete_state else None)
        _print_plan(console, manifest)
        with console.status("reading and copying the weights"):
            parameters = _copy_weights(network, DTYPES[config.dtype], folder / WEIGHTS)
            hashes = {f.name: file_sha256(f) for f in sorted({s.file for s in checkpoint.stored})}
        source = manifest.made_by["source"] | {"sha256": hashes}
        made_by = {**manifest.made_by, "source": source, "parameters": parameters}
        return replace(manifest, made_by=made_by)

    bundle = write_bundle(out, fill)
    parameters = bundle.manifest.made_by["parameters"]
    _say(console, f"\n{out} is written, {parameters / 1e6:,.1f} M parameters. Next:")
    _say(console, f"  z1-export {out}\n  ros2 launch z1_ros policy.launch.py model:={out}")
    return bundle


def plan(config: ImportConfig, checkpoint: Checkpoint, origin: Origin, name: str) -> Manifest:
    """Return the manifest of the bundle, without writing files; raises as ``import_checkpoint``."""
    robot = embodiment(config.embodiment)
    geometry = _geometry(config, checkpoint, origin)
    if config.discrete_state and not origin.discrete_state:
        raise ConfigError(
            f"{config.checkpoint} was saved with prompts that hold no state: pass "
            f"--no-discrete-state"
        )
    given = {"modality": config.modality, "state": config.state, "action": config.action}
    order = choose_order(robot, checkpoint.directory, **given)
    origin = replace(origin, renamed={**order.cameras, **origin.renamed})
    slots = map_cameras(origin, robot, config.cameras)
    stats = _read_stats(config, checkpoint)
    scaling = plan_scaling(robot, origin, stats, order, config)
    contract = Contract(
        cameras=tuple(camera for camera in slots.values() if camera),
        state=scaling.state,
        action=scaling.action,
        control_hz=robot.control_hz,
        horizon=geometry.horizon,
    )
    if len(contract.action_dims) > geometry.action_dim:
        raise ConfigError(
            f"the action fields are {len(contract.action_dims)} numbers, the network gives "
            f"{geometry.action_dim}"
        )
    check_contract(contract, robot, name)
    replan_steps, denoise_steps = config.replan_steps, config.denoise_steps
    if replan_steps is None:
        replan_steps = min(origin.replan_steps, geometry.horizon)
    try:
        return Manifest(
            name=name,
            embodiment=robot.name,
            contract=contract,
            image=ImageSpec(
                size=geometry.image_size,
                resize=config.resize or RESIZE[origin.kind],
                slots=geometry.cameras,
            ),
            prompt=PromptSpec(
                max_tokens=geometry.prompt_tokens, discrete_state=config.discrete_state
            ),
            normalization=scaling.normalization,
            geometry=asdict(geometry),
            denoise_steps=origin.denoise_steps if denoise_steps is None else denoise_steps,
            replan_steps=replan_steps,
            made_by=_made_by(config, checkpoint, origin, slots, stats, order, scaling),
        )
    except ValueError as error:
        raise ConfigError(f"{config.checkpoint} gives no valid bundle: {error}") from error


def _made_by(
    config: ImportConfig,
    checkpoint: Checkpoint,
    origin: Origin,
    slots: Mapping[str, str | None],
    stats: Stats,
    order: Order,
    scaling: Scaling,
) -> dict[str, Any]:
    """Return the manifest's ``made_by`` of the import, without hashes and size."""
    return {
        "command": config.command,
        "source": {
            "name": config.checkpoint.expanduser().resolve().name,
            "kind": origin.kind,
            "layout": checkpoint.layout.name,
            "dtype": " and ".join(checkpoint.dtypes),
            "statistics": stats.file.name,
            "modes": scaling.modes,
        },
        "slots": slots,
        "order": order.source,
        "notes": [*origin.notes, *scaling.notes],
        "versions": versions("torch", "transformers", "safetensors", "tokenizers"),
    }


def _geometry(config: ImportConfig, checkpoint: Checkpoint, origin: Origin) -> Geometry:
    hints = checkpoint.hints
    stated = {"cameras": len(origin.slots), "prompt_tokens": hints.get("prompt_tokens", 200)}
    flags = {name: getattr(config, name) for name in ("horizon", "prompt_tokens", "vision_heads")}
    stated |= {name: value for name, value in flags.items() if value is not None}
    if "horizon" not in {**hints, **stated}:
        raise ConfigError(
            f"{config.checkpoint} does not say how many actions a chunk has: pass --horizon (50 "
            f"for pi05_base and RoboCasa365, 15 for pi05_droid, 10 for pi05_libero)"
        )
    return infer_geometry(checkpoint, **stated)


def _read_stats(config: ImportConfig, checkpoint: Checkpoint) -> Stats:
    path = config.norm_stats or checkpoint.directory
    if path is None:
        raise ConfigError(
            f"{config.checkpoint} is a bare file of weights: pass --norm-stats with the statistics "
            f"that it was trained with"
        )
    return read_stats(path.expanduser(), config.asset_id)


def _tokenizer_source(config: ImportConfig, checkpoint: Checkpoint, origin: Origin) -> str:
    if config.tokenizer:
        return config.tokenizer
    directory = checkpoint.directory
    if directory is not None and any((directory / name).is_file() for name in FILES):
        return str(directory)
    return origin.tokenizer or PALIGEMMA


def _copy_weights(network: Pi05, dtype: torch.dtype | None, path: Path) -> int:
    """Write the weights with the names of z1_ros; return the number of parameters.

    The weights are read from the mapped files during writing. Only the weights whose type changes
    need memory.
    """
    tensors = (network if dtype is None else network.cast(dtype)).state_dict()
    needed = sum(tensor.nbytes for tensor in tensors.values())
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise BundleError(
            f"{path.parent} has {free / 1e9:.1f} GB left, the weights need {needed / 1e9:.1f} GB"
        )
    for name, tensor in tensors.items():
        # Equal to isfinite().all(), but without a copy of the tensor.
        if not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise CheckpointError(f"weight {name} is not finite")
    write_tensors(path, tensors)
    return sum(tensor.numel() for tensor in tensors.values())


def _say(console: Console, text: str, style: str | None = None) -> None:
    """Print text without markup, highlighting or line wrapping."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _print_plan(console: Console, manifest: Manifest) -> None:
    made_by, image, prompt = manifest.made_by, manifest.image, manifest.prompt
    source = made_by["source"]
    state = "with state" if prompt.discrete_state else "without state"
    modes = ", ".join(f"{kind} {mode}" for kind, mode in source["modes"].items())
    lines = [
        f"{source['name']}: {source['kind']} checkpoint, {source['layout']} layout, "
        f"{source['dtype']}, for {manifest.embodiment}",
        *(f"  slot {slot} ← {camera or 'masked'}" for slot, camera in made_by["slots"].items()),
        f"  images {image.size} px, {image.resize}",
        f"  prompt {state}, {prompt.max_tokens} tokens",
        f"  {manifest.contract.horizon} actions per chunk, {manifest.replan_steps} executed; "
        f"{manifest.denoise_steps} Euler steps",
        f"  statistics of {source['statistics']}: {modes}; {manifest.normalization.form} form",
        f"  columns {made_by['order']}",
    ]
    _say(console, "\n".join(lines))
    for kind in ("state", "action"):
        table = Table("column", f"{kind} field", "dims")
        for row in columns(getattr(manifest.contract, kind)):
            table.add_row(*row)
        if table.row_count:
            console.print(table)
    for note in made_by["notes"]:
        _say(console, f"note: {note}", style="yellow")
