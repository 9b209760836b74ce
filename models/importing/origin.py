"""Reads the input preprocessing of a foreign checkpoint from the files next to its weights.

The files of openpi do not describe the preprocessing. LeRobot's ``config.json`` and the steps of
its ``policy_preprocessor.json`` describe most of it.
Source: LeRobot ``policies/pi05/processor_pi05.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from z1_ros.errors import CheckpointError
from z1_ros.files import SHOWN, shown
from z1_ros.models.checkpoint.foreign_config import (
    CONFIG,
    IMAGES,
    POSTPROCESSOR,
    PREPROCESSOR,
    ForeignConfig,
    Step,
    find_step,
    read_steps,
)
from z1_ros.models.checkpoint.loading import Checkpoint
from z1_ros.models.importing.norm_stats import NORMALIZERS, modes_of

OLD_RELEASE = (
    "Saved by LeRobot 0.5.0 or older. Releases up to 0.4.4 padded the state in the prompt to 32 "
    "numbers and images with -3; if it was trained with one of them, it sees something else here "
    "than it did in training."
)
_STATE_STEP = "pi05_prepare_state_tokenizer_processor_step"
_TOKENIZER_STEP = "tokenizer_processor"
_RENAME_STEP = "rename_observations_processor"
_RELATIVE_STEPS = tuple(f"{kind}_actions_processor" for kind in ("relative", "delta", "absolute"))
_KNOWN_STEPS = {
    *(_STATE_STEP, _TOKENIZER_STEP, _RENAME_STEP, *_RELATIVE_STEPS),
    *("to_batch_processor", "device_processor", *NORMALIZERS.values()),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin(ForeignConfig):
    """Settings of ``config.json`` and of the processors; what no file defines is the default."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    """Slot -> camera name of the robot, for slots with another name."""
    modes: Mapping[str, str] = field(default_factory=dict)
    """``state`` and ``action`` -> LeRobot's name of the normalisation mode."""
    discrete_state: bool = True
    """Whether the prompt contains the state."""
    tokenizer: str | None = None
    """Name or path of the tokenizer."""
    notes: tuple[str, ...] = ()
    """Notes for the user about facts that the network does not show."""


def read_origin(checkpoint: Checkpoint, ignored_steps: tuple[str, ...] = ()) -> Origin:
    """Read the files next to the weights; for a single file, the layout determines the kind.

    ``ignored_steps`` are the names of unknown LeRobot processor steps to ignore.

    Raises:
        CheckpointError: A file is malformed, or a feature is not supported.
    """
    config, directory = checkpoint.config, checkpoint.directory
    if config is None or directory is None:
        return Origin(kind="lerobot" if checkpoint.layout.name == "lerobot" else "openpi")
    origin = Origin(**{stated.name: getattr(config, stated.name) for stated in fields(config)})
    if origin.kind == "openpi":
        return origin
    settings, file = config.settings, directory / CONFIG
    for key, what in (
        ("use_relative_actions", "relative actions"),
        ("use_peft", "adapter weights, which must be merged first"),
    ):
        if settings.get(key):
            raise CheckpointError(f"{file}: {key} is on; {what} are not supported")
    norm_map = settings.get("normalization_mapping")
    return replace(
        origin,
        modes={} if norm_map is None else modes_of(norm_map, file),
        notes=() if "use_relative_actions" in settings else (OLD_RELEASE,),
        **_read_processors(directory, ignored_steps),
    )


def _read_processors(path: Path, ignored: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of an ``Origin`` that the processor steps define."""
    if not (path / PREPROCESSOR).is_file():
        return {}
    steps = read_steps(path / PREPROCESSOR)
    _check_steps(steps, path / PREPROCESSOR, ignored)
    if (path / POSTPROCESSOR).is_file():
        _check_steps(read_steps(path / POSTPROCESSOR), path / POSTPROCESSOR, ignored)
    tokenizer, rename = find_step(steps, _TOKENIZER_STEP), find_step(steps, _RENAME_STEP)
    names = (rename.config.get("rename_map") if rename else None) or {}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{path / PREPROCESSOR}: rename_map must map names to names")
    return {
        "discrete_state": find_step(steps, _STATE_STEP) is not None,
        "tokenizer": str((tokenizer and tokenizer.config.get("tokenizer_name")) or "") or None,
        "renamed": {
            slot.removeprefix(IMAGES): camera.removeprefix(IMAGES)
            for camera, slot in names.items()
            if slot.startswith(IMAGES)
        },
    }


def _check_steps(steps: list[Step], file: Path, ignored: tuple[str, ...]) -> None:
    for step in steps:
        if step.name in _RELATIVE_STEPS and step.config.get("enabled"):
            raise CheckpointError(
                f"{file}: step {shown(step.name)} is enabled; actions relative to the state are "
                f"not supported, train with absolute or delta commands of the robot"
            )
        if step.name not in _KNOWN_STEPS and step.name not in ignored:
            raise CheckpointError(
                f"{file} has a step {shown(step.name)} that is not known here; if the network's "
                f"inputs and outputs do not depend on it, pass --ignore-steps {step.name[:SHOWN]}"
            )
