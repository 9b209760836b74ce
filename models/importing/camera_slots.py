"""Assignment of a robot's cameras to the image slots of a checkpoint."""

from z1_ros.errors import ConfigError, closest
from z1_ros.models.checkpoint.foreign_config import EMPTY_CAMERA
from z1_ros.models.importing.origin import Origin
from z1_ros.specs import Embodiment

ROBOCASA_SLOTS = {
    "base_0_rgb": "robot0_agentview_left",
    "left_wrist_0_rgb": "robot0_eye_in_hand",
    "right_wrist_0_rgb": "robot0_agentview_right",
}
"""openpi's slots as RoboCasa365's π0.5 checkpoint uses them (robocasa-benchmark/openpi)."""


def map_cameras(origin: Origin, robot: Embodiment, given: str) -> dict[str, str | None]:
    """Return slot -> camera, in the order of the slots; None masks a slot.

    By default, a slot uses the camera of the same name, or of the name in the checkpoint's
    rename_map. If there is none, openpi's slots use RoboCasa's cameras. LeRobot's empty cameras
    stay empty. ``given`` is ``slot=camera,slot=camera`` instead; other slots are masked.

    Raises:
        ConfigError: A slot or camera is unknown, or a slot has no camera.
    """
    cameras = _parse(given, origin, robot) if given else _guess(origin, robot)
    present = [camera for camera in cameras.values() if camera]
    if len(set(present)) < len(present):
        raise ConfigError(f"a camera fills two image slots: {', '.join(present)}")
    if not present:
        raise ConfigError(f"no image slot has a camera: pass --cameras. {_all(origin, robot)}")
    return cameras


def _guess(origin: Origin, robot: Embodiment) -> dict[str, str | None]:
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
            f"{_all(origin, robot)}"
        )
    return cameras


def _parse(given: str, origin: Origin, robot: Embodiment) -> dict[str, str | None]:
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


def _all(origin: Origin, robot: Embodiment) -> str:
    return f"Slots: {', '.join(origin.slots) or 'none'}. Cameras: {', '.join(robot.cameras)}."
