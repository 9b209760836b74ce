"""Reads the files of LeRobot or openpi next to a checkpoint's weights.

LeRobot's ``config.json`` describes most of the inputs, openpi's only two sizes. Sources: LeRobot
``policies/pi05/configuration_pi05.py`` and ``processor/pipeline.py``; openpi
``src/openpi/models/{model,pi0_config}.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from z1_ros.errors import CheckpointError
from z1_ros.files import read_json, shown
from z1_ros.models.network.geometry import LARGEST, MAX_WIDTH

CONFIG = "config.json"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
"""Files with the steps of the processors that LeRobot saves with a policy."""
IMAGES = "observation.images."
"""Prefix of LeRobot's names of image features."""
EMPTY_CAMERA = "empty_camera_"
"""Prefix of LeRobot's image slots without a camera."""
OPENPI_SLOTS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
"""Image slots of openpi's models, always in this order."""
OPENPI_PROMPT = 200
"""Number of tokens that openpi pads π0.5's prompts to; its file does not state it."""
DENOISE_STEPS, REPLAN_STEPS = 10, 5
"""Steps that are used if the file does not state them, as in openpi's examples."""
MAX_SLOTS = LARGEST["cameras"]
_ONLY = {
    "use_visual_memory": False,
    "use_proprioceptive_memory": False,
    "min_period": 4e-3,
    "max_period": 4.0,
    "n_obs_steps": 1,
}
"""Settings of LeRobot for which the network supports only one value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignConfig:
    """Content of a ``config.json``; a field that it does not define has its default."""

    kind: Literal["openpi", "lerobot"]
    """Project whose image preprocessing the training used."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the network by the names in ``Geometry``."""
    slots: tuple[str, ...] = OPENPI_SLOTS
    """Image slots in the network's order."""
    vectors: Mapping[str, int] = field(default_factory=dict)
    """``state`` and ``action`` -> number of dimensions without padding."""
    denoise_steps: int = DENOISE_STEPS
    """Euler steps."""
    replan_steps: int = REPLAN_STEPS
    """Actions executed before the next inference."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings in the file, unchecked."""


def read_config(directory: Path) -> ForeignConfig | None:
    """Read a folder's ``config.json``, if it has one; CheckpointError if it is not supported."""
    path = directory / CONFIG
    if not path.is_file():
        return None
    settings = read_json(path)
    if "type" in settings or "input_features" in settings:
        return _lerobot(settings, path)
    sizes = _sizes(settings, {"action_dim": "action_dim", "action_horizon": "horizon"}, path)
    if sizes:
        sizes |= {"cameras": len(OPENPI_SLOTS), "prompt_tokens": OPENPI_PROMPT}
    return ForeignConfig(kind="openpi", sizes=sizes, settings=settings)


def _lerobot(settings: dict[str, Any], path: Path) -> ForeignConfig:
    if settings.get("type") != "pi05":
        raise CheckpointError(
            f"{path} says type {shown(settings.get('type'))}; only 'pi05' is supported"
        )
    for name, expected in _ONLY.items():
        if settings.get(name, expected) != expected:
            raise CheckpointError(
                f"{path} says {name} {shown(settings[name])}; only {expected} is supported"
            )
    features = _features(settings, path)
    slots = _slots(settings, features, path)
    names = {
        "chunk_size": "horizon",
        "tokenizer_max_length": "prompt_tokens",
        "max_action_dim": "action_dim",
        "image_resolution": "image_size",
    }
    sizes = _sizes(settings | {"image_resolution": _image_side(settings, path)}, names, path)
    vectors = {
        kind: features[name]["shape"][0]
        for kind, name in (("state", "observation.state"), ("action", "action"))
        if name in features
    }
    return ForeignConfig(
        kind="lerobot",
        sizes=sizes | ({"cameras": len(slots)} if slots else {}),
        slots=slots,
        # The sizes of the base model are padding that belongs to no robot.
        vectors={k: n for k, n in vectors.items() if n != settings.get(f"max_{k}_dim", 32)},
        denoise_steps=_whole(settings, "num_inference_steps", path) or DENOISE_STEPS,
        replan_steps=_whole(settings, "n_action_steps", path) or REPLAN_STEPS,
        settings=settings,
    )


def _features(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for part in ("input_features", "output_features"):
        found = settings.get(part) or {}
        if not isinstance(found, dict) or not all(map(_is_feature, found.values())):
            raise CheckpointError(f"{path}: {part} must map names to a type and a shape")
        features |= found
    return features


def _is_feature(value: Any) -> bool:
    shape = value.get("shape") if isinstance(value, dict) else None
    return bool(shape) and isinstance(shape, list) and type(shape[0]) is int and "type" in value


def _slots(settings: dict[str, Any], features: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Return the image slots; missing cameras are last, in any order of the features."""
    slots = [name.removeprefix(IMAGES) for name, f in features.items() if f["type"] == "VISUAL"]
    empty = _whole(settings, "empty_cameras", path, least=0) or 0
    if len(slots) + empty > MAX_SLOTS:
        raise CheckpointError(
            f"{path} has {len(slots)} cameras and {empty} empty ones, more than {MAX_SLOTS}"
        )
    slots += [f"{EMPTY_CAMERA}{i}" for i in range(empty)]
    return tuple(sorted(dict.fromkeys(slots), key=lambda slot: slot.startswith(EMPTY_CAMERA)))


def _image_side(settings: dict[str, Any], path: Path) -> Any:
    sides = settings.get("image_resolution")
    if sides is None:
        return None
    if not isinstance(sides, list) or len(sides) != 2 or sides[0] != sides[1]:
        raise CheckpointError(
            f"{path}: image_resolution is {shown(sides)}, expected two equal sides"
        )
    return sides[0]


def _sizes(settings: dict[str, Any], names: Mapping[str, str], path: Path) -> dict[str, int]:
    found = {ours: _whole(settings, theirs, path) for theirs, ours in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def _whole(settings: dict[str, Any], key: str, path: Path, least: int = 1) -> int | None:
    value = settings.get(key)
    if value is not None and (type(value) is not int or not least <= value <= MAX_WIDTH):
        raise CheckpointError(
            f"{path}: {key} is {shown(value)}, expected a whole number from {least} to {MAX_WIDTH}"
        )
    return value


class Step(NamedTuple):
    """One step of a processor."""

    name: str
    """Name under which LeRobot registers the step, or its class name."""
    config: Mapping[str, Any]
    """Settings of the step."""
    state_file: str | None
    """File with the step's tensors, in the same directory; its name depends on the release."""


def read_steps(path: Path) -> list[Step]:
    """Return the steps of a processor's JSON file; raises CheckpointError if it is malformed."""
    steps = read_json(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(f"{path} has no list of steps")
    return [_step(step, f"{path}: step {i}") for i, step in enumerate(steps)]


def _step(step: dict[str, Any], what: str) -> Step:
    name = step.get("registry_name") or step.get("class")
    config, state_file = step.get("config", {}), step.get("state_file")
    if not isinstance(name, str) or not isinstance(config, dict):
        raise CheckpointError(f"{what} needs a registry_name and an object as config")
    # The named file is read, so it must be in the directory of the JSON file.
    plain = isinstance(state_file, str) and Path(state_file).name == state_file
    if state_file is not None and not plain:
        raise CheckpointError(f"{what} has state_file {shown(state_file)}, not a plain file name")
    return Step(name, config, state_file)


def find_step(steps: list[Step], name: str) -> Step | None:
    """Return the step called ``name``, or None."""
    return next((step for step in steps if step.name == name), None)
