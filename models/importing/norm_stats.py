"""Reads the normalisation statistics of openpi and LeRobot for a bundle's manifest.

Sources: openpi ``src/openpi/shared/normalize.py`` and ``transforms.py`` (``norm_stats.json``);
LeRobot ``src/lerobot/processor/normalize_processor.py`` (``policy_preprocessor.json`` with its
``state_file``) and the ``meta/stats.json`` of its datasets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from z1_ros.errors import CheckpointError, ConfigError, closest
from z1_ros.files import SHOWN, read_json, shown
from z1_ros.models.bundle.parts import STATS_PARTS, Form, NormStats
from z1_ros.models.checkpoint.foreign_config import (
    POSTPROCESSOR,
    PREPROCESSOR,
    find_step,
    read_steps,
)
from z1_ros.models.checkpoint.loading import read_tensors

OPENPI_FILE = "norm_stats.json"
NORMALIZERS = {PREPROCESSOR: "normalizer_processor", POSTPROCESSOR: "unnormalizer_processor"}
PARTS = ("mean", "std", "q01", "q99", "min", "max", "q10", "q90")
ENDS = {"QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90"), "MIN_MAX": ("min", "max")}
"""Mode of LeRobot's norm_map -> names of the statistics that are mapped to -1 and 1."""
NAMES: dict[Form, dict[str, str]] = {
    "lerobot": {"state": "observation.state", "action": "action"},
    "openpi": {"state": "state", "action": "actions"},
}
"""Names of state and action in the files of openpi and LeRobot."""
GIVE_STATS = (
    "pass --norm-stats with a norm_stats.json, the data set's meta/stats.json, or the directory of "
    "a LeRobot policy that was trained on the same robot"
)

Parts = Mapping[str, np.ndarray]
"""Statistic -> (D,) float64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """Statistics of a file, not yet truncated to the size of a contract; empty if it has none."""

    state: Parts
    action: Parts
    form: Form
    """Formulas that the statistics were made for: ``openpi`` or ``lerobot``."""
    file: Path
    modes: Mapping[str, str] = field(default_factory=dict)
    """``state`` and ``action`` -> LeRobot's mode name; empty if the file does not define it."""


def read_stats(path: Path, asset_id: str | None = None) -> Stats:
    """Read statistics in any known format; raises CheckpointError if missing or malformed.

    ``path`` is a ``norm_stats.json``, a LeRobot dataset's ``stats.json``, a LeRobot processor's
    JSON or safetensors, or a directory (checkpoint, assets, dataset) that contains one of them.
    ``asset_id`` selects one of several ``assets/<asset_id>/norm_stats.json``.
    """
    if not path.exists():
        raise CheckpointError(f"no normalisation statistics at {path}: there is no such path")
    if path.is_dir():
        return _read_directory(path, asset_id)
    if path.suffix == ".safetensors":
        return _stats(_read_flat(path), path, "lerobot")
    if path.name in NORMALIZERS:
        return _read_processors(path.parent)
    data = read_json(path)
    data = data.get("norm_stats", data)
    for form, names in NAMES.items():
        if isinstance(data, dict) and set(data) & set(names.values()):
            return _stats(data, path, form)
    raise CheckpointError(
        f"{path} holds no statistics of state and actions: expected openpi's keys state and "
        f"actions (perhaps below norm_stats) or LeRobot's observation.state and action"
    )


def _read_directory(path: Path, asset_id: str | None) -> Stats:
    if (path / PREPROCESSOR).is_file() and asset_id is None:
        return _read_processors(path)
    for name in ("stats.json", "meta/stats.json"):
        if (path / name).is_file():
            return read_stats(path / name)
    top = path / "assets" if (path / "assets").is_dir() else path
    files = sorted(top.rglob(OPENPI_FILE))
    found = {file.parent.relative_to(top).as_posix(): file for file in files}
    ids = ", ".join(name for name in found if name != ".") or "none"
    if asset_id is not None:
        if asset_id not in found:
            raise ConfigError(f"no asset id {asset_id!r} in {top}; it has: {ids}")
        return read_stats(found[asset_id])
    if len(found) > 1:
        raise ConfigError(f"{top} holds statistics of several robots; choose --asset-id: {ids}")
    if not found:
        raise CheckpointError(
            f"{path} holds no normalisation statistics ({PREPROCESSOR} or assets/…/{OPENPI_FILE}): "
            f"{GIVE_STATS}"
        )
    return read_stats(next(iter(found.values())))


def _read_processors(directory: Path) -> Stats:
    """Read both pipelines of a LeRobot policy; action statistics are from the postprocessor."""
    stats = _normalizer(directory / PREPROCESSOR)
    if not (directory / POSTPROCESSOR).is_file():
        return stats
    after = _normalizer(directory / POSTPROCESSOR)
    for part in sorted(set(stats.action) & set(after.action)):
        if not np.array_equal(stats.action[part], after.action[part], equal_nan=True):
            raise CheckpointError(
                f"{PREPROCESSOR} and {POSTPROCESSOR} in {directory} disagree about the "
                f"actions' {part}: pass --norm-stats with those the policy was trained with"
            )
    modes = {**stats.modes, "action": after.modes["action"]}
    return replace(stats, action=after.action or stats.action, modes=modes)


def _normalizer(path: Path) -> Stats:
    """Return the statistics and the modes of one pipeline's (un)normaliser."""
    step = find_step(read_steps(path), NORMALIZERS[path.name])
    if step is None:
        raise CheckpointError(f"{path} has no step {NORMALIZERS[path.name]!r}")
    modes = modes_of(step.config.get("norm_map"), path)
    data = _read_flat(path.parent / step.state_file) if step.state_file else {}
    return replace(_stats(data, path, "lerobot"), modes=modes)


def modes_of(norm_map: Any, path: Path) -> dict[str, str]:
    """Return the modes of state and action in a LeRobot norm_map; raises CheckpointError."""
    known = ("MEAN_STD", "IDENTITY", *ENDS)
    norm_map = norm_map if isinstance(norm_map, dict) else {}
    if norm_map.get("VISUAL", "IDENTITY") != "IDENTITY":
        raise CheckpointError(
            f"{path} normalises images by {shown(norm_map['VISUAL'])}; π0.5 does not"
        )
    modes = {kind: norm_map.get(kind.upper(), "IDENTITY") for kind in NAMES["lerobot"]}
    for kind, mode in modes.items():
        if mode not in known:
            raise CheckpointError(
                f"{path} normalises the {kind} by {shown(mode)}. "
                f"{closest(str(mode)[:SHOWN], known)}"
            )
    return modes


def _read_flat(path: Path) -> dict[str, Any]:
    """Return feature -> statistic -> values of a processor's safetensors file."""
    if not path.is_file():
        raise CheckpointError(f"no normalisation statistics at {path}")
    nested: dict[str, Any] = {}
    for name, tensor in read_tensors(path).items():
        feature, _, part = name.rpartition(".")
        nested.setdefault(feature, {})[part] = tensor.double().numpy()
    return nested


def _stats(data: Mapping[str, Any], file: Path, form: Form) -> Stats:
    kinds: dict[str, Parts] = {}
    for kind, name in NAMES[form].items():
        found = data.get(name, {})
        if not isinstance(found, Mapping):
            raise CheckpointError(f"{file}: {name} is not an object of statistics")
        kinds[kind] = {
            part: _vector(value, f"{file}: {name}.{part}")
            for part, value in found.items()
            if part in PARTS and value is not None
        }
        lengths = {part: len(value) for part, value in kinds[kind].items()}
        if len(set(lengths.values())) > 1:
            raise CheckpointError(f"{file}: {name} has parts of several lengths {lengths}")
    return Stats(state=kinds["state"], action=kinds["action"], form=form, file=file)


def _vector(value: Any, what: str) -> np.ndarray:
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{what} is not a list of numbers") from error
    if vector.ndim != 1:
        raise CheckpointError(f"{what} has shape {vector.shape}, expected one number per dimension")
    return vector


def cut(parts: Parts, size: int, what: str) -> dict[str, np.ndarray]:
    """Return the first ``size`` numbers of each part.

    Raises:
        CheckpointError: A part has fewer numbers, or the rest is not padding (mean 0, standard
            deviation 0 or 1, range ends 0 or -1 and 1).
    """
    for part, values in parts.items():
        if len(values) < size:
            raise CheckpointError(f"{what} has statistics of {len(values)} numbers, not {size}")
        rest = np.nan_to_num(values[size:])
        allowed = {"mean": (0,), "std": (0, 1)}.get(part, (-1, 0, 1))
        strange = np.min([np.abs(rest - a) for a in allowed], axis=0) > 1e-6
        if strange.any():
            at = int(np.argmax(strange))
            raise CheckpointError(
                f"{what} has statistics of {len(values)} numbers, but the fields name only {size}; "
                f"number {size + at} is no padding ({part} {rest[at]:g})"
            )
    return {part: values[:size] for part, values in parts.items()}


def identity(size: int) -> Parts:
    """Return statistics with which the z-score is the identity (mean 0, standard deviation 1)."""
    return {"mean": np.zeros(size), "std": np.ones(size)}


def norm_stats(parts: Parts, mode: str, what: str) -> NormStats:
    """Return the manifest's statistics of the vector ``what``: those that its mode needs.

    ``mode`` is LeRobot's name. Its MIN_MAX and QUANTILE10 use the formula of quantiles with other
    range ends, so their ends become q01 and q99. IDENTITY is the z-score of ``identity``.

    Raises:
        CheckpointError: Statistics that the mode needs are missing or impossible.
    """
    needed = ENDS.get(mode, ("mean", "std"))
    if not parts:
        raise CheckpointError(f"the checkpoint has no statistics of {what}: {GIVE_STATS}")
    lacking = [part for part in needed if part not in parts]
    if lacking:
        other = "mean_std" if mode in ENDS else "quantile"
        raise CheckpointError(
            f"{what} is normalised by {mode}, but its statistics lack {' and '.join(lacking)} "
            f"(there are: {', '.join(parts) or 'none'}); if it was trained otherwise, pass "
            f"--norm-mode {other}, else --norm-stats"
        )
    for part in needed:
        bad = ~np.isfinite(parts[part])
        if bad.any():
            raise CheckpointError(f"{what}: {part} of number {int(np.argmax(bad))} is not finite")
    first, second = (parts[part] for part in needed)
    wrong = second < (first if mode in ENDS else 0)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise CheckpointError(
            f"{what}: number {at} has {needed[0]} {first[at]:g} and {needed[1]} {second[at]:g}, "
            "which cannot be"
        )
    names = STATS_PARTS["quantile" if mode in ENDS else "mean_std"]
    values = (tuple(parts[part].tolist()) for part in needed)
    return NormStats(**dict(zip(names, values, strict=True)))
