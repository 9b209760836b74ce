"""Checkpoint directories as openpi and LeRobot write them, around the golden micro weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors.numpy import load_file, save_file
from support import DATA as DATA_ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from z1_ros.models.importing.config import ImportConfig
from z1_ros.models.importing.importer import import_checkpoint
from z1_ros.models.importing.modality import KNOWN_ORDERS, Order, fields_of
from z1_ros.specs import PANDA_OMRON

DATA = DATA_ROOT
WEIGHTS = DATA / "pi05_micro_float32" / "openpi.safetensors"
PREFIX = "paligemma_with_expert.paligemma."
EE_FIRST, BASE_FIRST = KNOWN_ORDERS["ee-first"], KNOWN_ORDERS["base-first"]
PARTS = {"q01": 0.01, "q10": 0.1, "q90": 0.9, "q99": 0.99}


def samples() -> dict[str, np.ndarray]:
    """Return what a mobile Panda in a kitchen might record: field name -> (N, size)."""
    random = np.random.default_rng(0)

    def near(*means: float, spread: float = 0.1) -> np.ndarray:
        return np.asarray(means) + random.normal(0, spread, (2000, len(means)))

    def switch(on: float) -> np.ndarray:
        return np.where(random.uniform(size=(2000, 1)) < on, 1.0, -1.0)

    yaw = near(0.0, spread=0.5)
    return {
        "end_effector_position_relative": near(0.4, 0.0, 0.3),
        "end_effector_rotation_relative": np.clip(near(0.7, 0.7, 0.0, 0.0, spread=0.05), -1, 1),
        "base_position": near(2.5, -1.5, 0.8, spread=0.7),
        "base_rotation": np.hstack([0 * yaw, 0 * yaw, np.sin(yaw / 2), np.cos(yaw / 2)]),
        "gripper_qpos": near(0.02, -0.02, spread=0.01),
        "joint_position": near(*np.linspace(-1, 1, 7)),
        "end_effector_position": np.clip(near(0.0, 0.1, -0.1, spread=0.3), -1, 1),
        "end_effector_rotation": near(0.0, 0.0, 0.0, spread=0.05),
        "gripper_close": switch(0.4),
        "base_motion": np.where(random.uniform(size=(2000, 4)) < 0.05, 0.5, 0.0),
        "control_mode": switch(0.1),
    }


def flat(names: tuple[str, ...], values: dict[str, np.ndarray]) -> np.ndarray:
    """Return the fields' columns side by side (N, D)."""
    return np.hstack([values[name] for name in names])


def parts_of(values: np.ndarray, pad: int = 0) -> dict[str, list[float]]:
    """Return every statistic of (N, D), padded with zeros to ``pad`` numbers."""
    values = np.pad(values, ((0, 0), (0, max(0, pad - values.shape[1]))))
    parts = {"mean": values.mean(0), "std": values.std(0), "min": values.min(0)}
    parts["max"] = values.max(0)
    parts |= {name: np.quantile(values, q, axis=0) for name, q in PARTS.items()}
    return {name: part.astype(np.float32).tolist() for name, part in parts.items()}


def stats_of(order: Order, pad: int = 0, **changed: np.ndarray) -> dict[str, dict]:
    """Return ``state`` and ``action`` -> statistics, in the order of ``order``."""
    values = samples() | changed
    return {kind: parts_of(flat(getattr(order, kind), values), pad) for kind in ("state", "action")}


def modality(order: Order, keys: tuple = ("observation.state", "action")) -> dict:
    """Return the content of a modality.json, its fields in the order of their names."""
    data = {"video": {}, "annotation": {}}
    for kind, key in zip(("state", "action"), keys, strict=True):
        at, spans = 0, {}
        for field in fields_of(getattr(order, kind), PANDA_OMRON, kind):
            spans[field.name] = {"original_key": key, "start": at, "end": at + field.size}
            at += field.size
        data[kind] = dict(sorted(spans.items()))
    return data


def openpi_stats(stats: dict[str, dict]) -> dict:
    """Return the content of a norm_stats.json."""
    kept = ("mean", "std", "q01", "q99")
    return {
        "norm_stats": {
            "state": {part: stats["state"][part] for part in kept},
            "actions": {part: stats["action"][part] for part in kept},
        }
    }


def write_tokenizer(path: Path) -> Path:
    """Write a tokenizer of single characters that fits the micro network's 512 ids."""
    control = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = dict.fromkeys(control, -1000.0) | dict.fromkeys(map(chr, range(32, 127)), -1.0)
    vocab = list((pieces | {"\n": -1.0}).items())
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(path))
    return path


def write_openpi(directory: Path, stats: dict[str, dict], asset: str = "robot") -> Path:
    """Write a checkpoint directory as openpi's converter does, with a tokenizer beside it."""
    directory.mkdir(parents=True)
    shutil.copyfile(WEIGHTS, directory / "model.safetensors")
    write_json(directory / "config.json", {"action_dim": 32, "action_horizon": 10})
    write_json(directory / "assets" / asset / "norm_stats.json", openpi_stats(stats))
    write_tokenizer(directory / "tokenizer.json")
    return directory


def write_lerobot(directory: Path, stats: dict[str, dict], **config: object) -> Path:
    """Write a checkpoint directory as LeRobot saves a policy, with a tokenizer beside it."""
    directory.mkdir(parents=True)
    tensors = load_file(WEIGHTS)
    embedding = tensors[f"{PREFIX}lm_head.weight"]
    tensors[f"{PREFIX}model.language_model.embed_tokens.weight"] = embedding.copy()
    tensors[f"{PREFIX}lm_head.weight"] = np.zeros_like(embedding)  # stale after training
    save_file({f"model.{k}": v for k, v in tensors.items()}, directory / "model.safetensors")
    facts = json.loads((DATA / "processor" / "config.json").read_text())
    facts |= {"image_resolution": [56, 56], "chunk_size": 10, "n_action_steps": 8}
    write_json(directory / "config.json", facts | {"tokenizer_max_length": 160} | config)
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        shutil.copyfile(DATA / "processor" / name, directory / name)
    write_lerobot_stats(directory, stats)
    write_tokenizer(directory / "tokenizer.json")
    return directory


def write_lerobot_stats(directory: Path, stats: dict[str, dict]) -> None:
    """Write both normalisers' statistics, where the processors' JSON says."""
    names = {"state": "observation.state", "action": "action"}
    flat_stats = {
        f"{names[kind]}.{part}": np.asarray(values, np.float32)
        for kind, parts in stats.items()
        for part, values in parts.items()
    }
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        for step in json.loads((directory / name).read_text())["steps"]:
            if "state_file" in step:
                save_file(flat_stats, directory / step["state_file"])


def write_json(path: Path, data: object) -> Path:
    """Write JSON, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def edit_json(path: Path, edit) -> None:
    """Apply ``edit`` to the parsed content of a JSON file."""
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def edit_normalizers(directory: Path, edit) -> None:
    """Apply ``edit`` to the step of both processors that normalises."""
    for name, place in (("policy_preprocessor", 3), ("policy_postprocessor", 0)):
        edit_json(directory / f"{name}.json", lambda data, at=place: edit(data["steps"][at]))


def pad_features(directory: Path) -> None:
    """Let a policy's features have 32 numbers that belong to no robot, as LeRobot's pi05_base."""

    def pad(data: dict) -> None:
        data["input_features"]["observation.state"]["shape"] = [32]
        data["output_features"]["action"]["shape"] = [32]

    edit_json(directory / "config.json", pad)


EE_STATS, BASE_STATS = stats_of(EE_FIRST), stats_of(BASE_FIRST)


def import_config(checkpoint, **changed):
    made = ImportConfig(
        checkpoint=checkpoint,
        embodiment="panda_omron",
        out=checkpoint.parent / "bundle",
        modality="ee-first",
        vision_heads=4,
    )
    return replace(made, **changed)


def import_quietly(made):
    return import_checkpoint(made, Console(quiet=True))
