"""Assignment of a checkpoint's columns and image slots to a robot's fields and cameras.

Public data uses two incompatible flat orders of RoboCasa's mobile Panda. An order is therefore
defined explicitly: by a ``modality.json``, by name, or field by field.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from z1_ros.errors import CheckpointError, ConfigError, closest
from z1_ros.files import read_json, shown
from z1_ros.models.checkpoint.foreign_config import EMPTY_CAMERA, IMAGES
from z1_ros.models.importing.origin import Origin
from z1_ros.specs import Embodiment, Field

KINDS = ("state", "action")


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Names of the state and action fields in the order of the flat columns."""

    state: tuple[str, ...]
    action: tuple[str, ...]
    source: str
    """Source of the order, in words."""
    spelled_out: tuple[str, ...] = KINDS
    """Which of ``state`` and ``action`` have a stated order; the other uses the robot's order."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """Image feature -> camera name, if a modality.json defines it."""


_EEF_STATE = ("end_effector_position_relative", "end_effector_rotation_relative")
_BASE_STATE = ("base_position", "base_rotation")
_EEF_ACTION = ("end_effector_position", "end_effector_rotation", "gripper_close")
_BASE_ACTION = ("base_motion", "control_mode")
KNOWN_ORDERS = {
    "ee-first": Order(
        state=(*_EEF_STATE, *_BASE_STATE, "gripper_qpos"),
        action=(*_EEF_ACTION, *_BASE_ACTION),
        source="ee-first: RoboCasa's HDF5 data, its openpi fork, convert_action",
    ),
    "base-first": Order(
        state=(*_BASE_STATE, *_EEF_STATE, "gripper_qpos"),
        action=(*_BASE_ACTION, *_EEF_ACTION),
        source="base-first: RoboCasa's LeRobot-format data, LeRobot's RoboCasa environment",
    ),
}
"""RoboCasa's two orders (robocasa ``utils/env_utils.py`` and ``PandaOmron_modality.json``)."""
ROBOCASA_SLOTS = {
    "base_0_rgb": "robot0_agentview_left",
    "left_wrist_0_rgb": "robot0_eye_in_hand",
    "right_wrist_0_rgb": "robot0_agentview_right",
}
"""openpi's slots as RoboCasa365's π0.5 checkpoint uses them (robocasa-benchmark/openpi)."""


def choose_order(
    robot: Embodiment,
    checkpoint: Path | None,
    *,
    modality: str = "",
    state: str = "",
    action: str = "",
) -> Order:
    """Return the order of a checkpoint's columns.

    It is ``modality`` (the name of a known order or the path of a modality.json), otherwise that of
    the modality.json in the checkpoint's directory, otherwise the robot's. ``state`` and ``action``
    are field names, separated by commas, that replace its fields.

    Raises:
        ConfigError: The order or a field is unknown.
        CheckpointError: The modality.json is malformed.
    """
    given = Path(modality).expanduser() if modality else None
    places = [checkpoint / name for name in ("modality.json", "meta/modality.json") if checkpoint]
    if modality in KNOWN_ORDERS:
        order = KNOWN_ORDERS[modality]
    elif given and not given.is_file():
        raise ConfigError(
            f"no order {modality!r}: expected {' or '.join(KNOWN_ORDERS)}, or a modality.json"
        )
    elif file := given or next(filter(Path.is_file, places), None):
        order = read_modality(file, robot)
    else:
        order = Order(
            state=tuple(own.name for own in robot.state),
            action=tuple(own.name for own in robot.action),
            source="the robot's own order",
            spelled_out=(),
        )
    for kind, text in (("state", state), ("action", action)):
        if text:
            names: dict[str, Any] = {kind: tuple(name.strip() for name in text.split(","))}
            source, stated = f"{order.source}; --{kind} as given", (*order.spelled_out, kind)
            order = replace(order, source=source, spelled_out=stated, **names)
    return order


def read_modality(path: Path, robot: Embodiment) -> Order:
    """Read an order from a ``modality.json`` in the format of GR00T and RoboCasa.

    Raises:
        CheckpointError: The file is malformed, or its columns have gaps, overlap, or differ in size
            from the robot's fields.
    """
    data = read_json(path)
    return Order(
        state=_names_of(data, "state", path, robot),
        action=_names_of(data, "action", path, robot),
        source=path.name,
        cameras=_cameras_of(data, path),
    )


def _cameras_of(data: dict[str, Any], path: Path) -> dict[str, str]:
    video = data.get("video", {})
    if not isinstance(video, dict) or not all(isinstance(v, dict) for v in video.values()):
        raise CheckpointError(f"{path}: video must map names to objects")
    keys = {name: str(entry.get("original_key", name)) for name, entry in video.items()}
    return {key.removeprefix(IMAGES): name for name, key in keys.items()}


def _names_of(data: dict[str, Any], kind: str, path: Path, robot: Embodiment) -> tuple[str, ...]:
    """Return one vector's field names in the order of their columns."""
    fields = data.get(kind)
    if not isinstance(fields, dict) or not fields:
        raise CheckpointError(f"{path} has no {kind} fields")
    sources = {str(f.get("original_key")) for f in fields.values() if isinstance(f, dict)}
    if len(sources) > 1:
        raise CheckpointError(
            f"{path}: the {kind} fields come from several vectors ({', '.join(sorted(sources))}), "
            f"a policy has one"
        )
    spans = sorted((*_span(f, f"{path}: {kind}.{name}"), name) for name, f in fields.items())
    names = tuple(name for _, _, name in spans)
    at = 0
    for (start, end, name), known in zip(spans, fields_of(names, robot, kind), strict=True):
        if start != at:
            what = "overlaps the field before it" if start < at else "leaves a gap before it"
            raise CheckpointError(
                f"{path}: {kind}.{name} starts at column {start}, which {what} (next is {at})"
            )
        if end - start != known.size:
            raise CheckpointError(
                f"{path}: {kind}.{name} has {end - start} columns, on {robot.name!r} it has "
                f"{known.size} ({', '.join(known.dims)})"
            )
        at = end
    return names


def _span(field: Any, what: str) -> tuple[int, int]:
    start, end = (field.get(k) if isinstance(field, dict) else None for k in ("start", "end"))
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise CheckpointError(
            f"{what} needs whole numbers start < end, got {shown(start)} and {shown(end)}"
        )
    return start, end


def fields_of(names: Sequence[str], robot: Embodiment, kind: str) -> tuple[Field, ...]:
    """Return the robot's fields; raises ConfigError if a name is unknown or occurs twice."""
    known: Mapping[str, Field] = {field.name: field for field in getattr(robot, kind)}
    for at, name in enumerate(names):
        if name not in known:
            raise ConfigError(
                f"robot {robot.name!r} has no {kind} field {name!r}. {closest(name, known)}"
            )
        if name in names[:at]:
            raise ConfigError(f"{kind} field {name!r} is named twice")
    return tuple(Field(name=name, dims=known[name].dims, unit=known[name].unit) for name in names)


def list_sizes(fields: Iterable[Field]) -> str:
    """Return ``name (size), …``."""
    return ", ".join(f"{field.name} ({field.size})" for field in fields)


def columns(fields: Iterable[Field]) -> list[tuple[str, str, str]]:
    """Return (column range, field, dims) of each field for a table."""
    rows, at = [], 0
    for part in fields:
        span = f"{at}" if part.size == 1 else f"{at}–{at + part.size - 1}"
        rows.append((span, part.name, " ".join(part.dims)))
        at += part.size
    return rows


def map_cameras(origin: Origin, robot: Embodiment, given: str) -> dict[str, str | None]:
    """Return slot -> camera, in the order of the slots; None masks a slot.

    By default, a slot uses the camera of the same name, or of the name in the checkpoint's
    rename_map. If there is none, openpi's slots use RoboCasa's cameras. LeRobot's empty cameras
    stay empty. ``given`` is ``slot=camera,slot=camera`` instead; other slots are masked.

    Raises:
        ConfigError: A slot or camera is unknown, or a slot has no camera.
    """
    cameras = _parse_cameras(given, origin, robot) if given else _guess_cameras(origin, robot)
    present = [camera for camera in cameras.values() if camera]
    if len(set(present)) < len(present):
        raise ConfigError(f"a camera fills two image slots: {', '.join(present)}")
    if not present:
        raise ConfigError(
            f"no image slot has a camera: pass --cameras. {_slots_and_cameras(origin, robot)}"
        )
    return cameras


def _guess_cameras(origin: Origin, robot: Embodiment) -> dict[str, str | None]:
    cameras: dict[str, str | None] = {}
    for slot in origin.slots:
        name = origin.renamed.get(slot, slot)
        if name not in robot.cameras and name == slot:
            name = ROBOCASA_SLOTS.get(slot, slot)
        cameras[slot] = name if name in robot.cameras else None
    alone = [s for s, camera in cameras.items() if not camera and not s.startswith(EMPTY_CAMERA)]
    if alone:
        raise ConfigError(
            f"robot {robot.name!r} has no camera of the name of image slots {', '.join(alone)}: "
            f"pass --cameras slot=camera,slot=camera; slots that are left out are masked. "
            f"{_slots_and_cameras(origin, robot)}"
        )
    return cameras


def _parse_cameras(given: str, origin: Origin, robot: Embodiment) -> dict[str, str | None]:
    cameras: dict[str, str | None] = dict.fromkeys(origin.slots)
    for pair in given.split(","):
        slot, equals, camera = (part.strip() for part in pair.partition("="))
        if not equals:
            raise ConfigError(f"--cameras has {pair!r}, expected slot=camera,slot=camera")
        if slot not in cameras:
            raise ConfigError(
                f"the checkpoint has no image slot {slot!r}. {closest(slot, cameras)}"
            )
        if camera not in robot.cameras:
            raise ConfigError(
                f"robot {robot.name!r} has no camera {camera!r}. {closest(camera, robot.cameras)}"
            )
        if cameras[slot]:
            raise ConfigError(f"--cameras fills slot {slot!r} twice")
        cameras[slot] = camera
    return cameras


def _slots_and_cameras(origin: Origin, robot: Embodiment) -> str:
    return f"Slots: {', '.join(origin.slots) or 'none'}. Cameras: {', '.join(robot.cameras)}."
