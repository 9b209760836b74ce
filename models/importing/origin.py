"""How a foreign checkpoint's inputs are prepared, as the files beside its weights say.

openpi's say nothing of it; LeRobot's ``config.json`` and the steps of its
``policy_preprocessor.json`` nearly everything. Sizes are read by ``weight_files``. Source: LeRobot
``policies/pi05/configuration_pi05.py`` and ``processor_pi05.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from z1_ros.errors import CheckpointError
from z1_ros.files import read_json
from z1_ros.models.importing.lerobot_steps import (
    POSTPROCESSOR,
    PREPROCESSOR,
    Step,
    find_step,
    read_steps,
)
from z1_ros.models.importing.modality import IMAGES
from z1_ros.models.importing.norm_stats import modes_of

OPENPI_SLOTS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
"""Image slots of openpi's models, always in this order."""
EMPTY_CAMERA = "empty_camera_"
"""LeRobot's slots without a camera."""
OLD_RELEASE = (
    "Saved by LeRobot 0.5.0 or older. Releases up to 0.4.4 padded the state in the prompt to 32 "
    "numbers and images with -3; if it was trained with one of them, it sees something else here "
    "than it did in training."
)
_STATE_STEP = "pi05_prepare_state_tokenizer_processor_step"
_TOKENIZER_STEP = "tokenizer_processor"
_RENAME_STEP = "rename_observations_processor"
_RELATIVE_STEPS = (
    "relative_actions_processor",
    "delta_actions_processor",
    "absolute_actions_processor",
)
_KNOWN_STEPS = {
    *(_STATE_STEP, _TOKENIZER_STEP, _RENAME_STEP, *_RELATIVE_STEPS),
    *("to_batch_processor", "device_processor", "normalizer_processor", "unnormalizer_processor"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A checkpoint's own account of itself; None where it does not say."""

    kind: str
    """``openpi`` or ``lerobot``: whose image preparation it was trained with."""
    slots: tuple[str, ...] = OPENPI_SLOTS
    """Image slots in the network's order."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Slot -> name of the camera that its robot calls otherwise."""
    denoise_steps: int = 10
    """Euler steps."""
    replan_steps: int = 5
    """Actions executed before the next inference; 5 in openpi's examples."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """``state`` and ``action`` -> numbers without padding."""
    modes: Mapping[str, str] = field(default_factory=dict)
    """``state`` and ``action`` -> LeRobot's name of the normalisation mode."""
    discrete_state: bool = True
    """Whether the state is in the prompt."""
    tokenizer: str | None = None
    """Name or path of the tokenizer."""
    notes: tuple[str, ...] = ()
    """What a user should know and the network cannot show."""


def read_origin(path: Path | None, layout: str, ignored_steps: tuple[str, ...] = ()) -> Origin:
    """Read what stands beside the weights.

    Args:
        path: Checkpoint directory; None for a bare file of weights, which says nothing.
        layout: Layout of the weights, which tells the kind where no config.json does.
        ignored_steps: Unknown steps of LeRobot processors to pass over.

    Raises:
        CheckpointError: Malformed files, another model, or a feature that is not supported.
    """
    if path is None or not (path / "config.json").is_file():
        return Origin(kind="lerobot" if layout == "lerobot" else "openpi")
    config = read_json(path / "config.json")
    if "type" in config or "input_features" in config:
        return _lerobot(path, config, ignored_steps)
    return Origin(kind="openpi")


def _lerobot(path: Path, config: dict[str, Any], ignored_steps: tuple[str, ...]) -> Origin:
    file = path / "config.json"
    _refuse_unsupported(config, file)
    features = _features(config, file)
    sizes = {
        kind: features[name]["shape"][0]
        for kind, name in (("state", "observation.state"), ("action", "action"))
        # The base model's are padding that belongs to no robot.
        if name in features and features[name]["shape"][0] != config.get(f"max_{kind}_dim", 32)
    }
    known = {
        "denoise_steps": _whole(config, "num_inference_steps", file),
        "replan_steps": _whole(config, "n_action_steps", file),
    }
    known = {name: value for name, value in known.items() if value is not None}
    return Origin(
        kind="lerobot",
        slots=_slots(config, features),
        sizes=sizes,
        modes=modes_of(config["normalization_mapping"], file)
        if "normalization_mapping" in config
        else {},
        notes=() if "use_relative_actions" in config else (OLD_RELEASE,),
        **(known | _read_processors(path, ignored_steps)),
    )


def _slots(config: dict[str, Any], features: dict[str, Any]) -> tuple[str, ...]:
    """Return the image slots; missing cameras come last, whatever their place in the features."""
    slots = [name.removeprefix(IMAGES) for name, f in features.items() if f["type"] == "VISUAL"]
    slots += [f"{EMPTY_CAMERA}{i}" for i in range(int(config.get("empty_cameras", 0)))]
    return tuple(sorted(dict.fromkeys(slots), key=lambda slot: slot.startswith(EMPTY_CAMERA)))


def _refuse_unsupported(config: dict[str, Any], file: Path) -> None:
    if config.get("type") != "pi05":
        raise CheckpointError(
            f"{file} describes a LeRobot policy of type {config.get('type')!r}; only 'pi05' can "
            f"be imported"
        )
    for key, what in (
        ("use_relative_actions", "relative actions"),
        ("use_peft", "adapter weights, which must be merged first"),
    ):
        if config.get(key):
            raise CheckpointError(f"{file}: {key} is on; {what} are not supported")
    resolution = config.get("image_resolution", (224, 224))
    if len(resolution) != 2 or resolution[0] != resolution[1]:
        raise CheckpointError(f"{file}: image_resolution is {resolution}, expected two equal sides")
    if config.get("n_obs_steps", 1) != 1:
        raise CheckpointError(f"{file}: n_obs_steps is {config['n_obs_steps']}, expected 1")


def _features(config: dict[str, Any], file: Path) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for part in ("input_features", "output_features"):
        found = config.get(part) or {}
        well = isinstance(found, dict) and all(
            isinstance(f, dict) and isinstance(f.get("shape"), list) and f["shape"] and "type" in f
            for f in found.values()
        )
        if not well:
            raise CheckpointError(f"{file}: {part} must map names to a type and a shape")
        features |= found
    return features


def _read_processors(path: Path, ignored: tuple[str, ...]) -> dict[str, Any]:
    """Return the parts of an Origin that the processors' steps tell."""
    if not (path / PREPROCESSOR).is_file():
        return {}
    steps = read_steps(path / PREPROCESSOR)
    _check_steps(steps, path / PREPROCESSOR, ignored)
    if (path / POSTPROCESSOR).is_file():
        _check_steps(read_steps(path / POSTPROCESSOR), path / POSTPROCESSOR, ignored)
    tokenizer, rename = find_step(steps, _TOKENIZER_STEP), find_step(steps, _RENAME_STEP)
    names = (rename.config.get("rename_map") if rename else None) or {}
    texts = isinstance(names, dict) and all(isinstance(name, str) for name in names.values())
    if not texts:
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
                f"{file}: step {step.name!r} is enabled; actions relative to the state are not "
                f"supported, train with absolute or delta commands of the robot"
            )
        if step.name not in _KNOWN_STEPS and step.name not in ignored:
            raise CheckpointError(
                f"{file} has a step {step.name!r} that is not known here; if the network's inputs "
                f"and outputs do not depend on it, pass --ignore-steps {step.name}"
            )


def _whole(data: dict[str, Any], key: str, file: Path) -> int | None:
    value = data.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise CheckpointError(f"{file}: {key} is {value!r}, expected a whole number from 1")
    return value
