"""Image slots get the cameras that they were trained with, or ask."""

import pytest

from z1_ros.errors import ConfigError
from z1_ros.models.checkpoint.foreign_config import OPENPI_SLOTS
from z1_ros.models.importing.camera_slots import map_cameras
from z1_ros.models.importing.origin import Origin
from z1_ros.specs import PANDA

LEFT, RIGHT, WRIST = PANDA.cameras


def origin(*slots, **renamed):
    return Origin(kind="lerobot", slots=slots, renamed=renamed)


def test_openpi_slots_are_robocasas_cameras():
    mapped = map_cameras(Origin(kind="openpi"), PANDA, "")
    assert list(mapped.items()) == [
        ("base_0_rgb", LEFT),
        ("left_wrist_0_rgb", WRIST),
        ("right_wrist_0_rgb", RIGHT),
    ]


def test_slots_of_a_cameras_name_get_it_and_empty_ones_stay_empty():
    mapped = map_cameras(origin(WRIST, LEFT, "empty_camera_0"), PANDA, "")
    assert list(mapped.items()) == [(WRIST, WRIST), (LEFT, LEFT), ("empty_camera_0", None)]


def test_a_rename_map_is_honoured():
    mapped = map_cameras(origin("base_0_rgb", "image2", base_0_rgb=RIGHT, image2=WRIST), PANDA, "")
    assert mapped == {"base_0_rgb": RIGHT, "image2": WRIST}


def test_a_renamed_slot_does_not_fall_back_to_robocasas_camera():
    with pytest.raises(ConfigError, match="image slots base_0_rgb"):
        map_cameras(origin("base_0_rgb", base_0_rgb="front"), PANDA, "")


def test_stated_cameras_replace_every_guess():
    mapped = map_cameras(
        Origin(kind="openpi"), PANDA, f"base_0_rgb={RIGHT}, right_wrist_0_rgb={LEFT}"
    )
    assert mapped == {"base_0_rgb": RIGHT, "left_wrist_0_rgb": None, "right_wrist_0_rgb": LEFT}
    assert tuple(mapped) == OPENPI_SLOTS


@pytest.mark.parametrize(
    ("slots", "given", "words"),
    [
        (("image", "image2"), "", r"image slots image, image2: pass --cameras.*Cameras: robot0_"),
        ((), "", "no image slot has a camera"),
        (("empty_camera_0",), "", "no image slot has a camera"),
        (OPENPI_SLOTS, "base_0_rgb", "expected slot=camera"),
        (OPENPI_SLOTS, f"base={LEFT}", r"no image slot 'base'.*Known: base_0_rgb"),
        (OPENPI_SLOTS, "base_0_rgb=left", r"no camera 'left'\. Known"),
        (OPENPI_SLOTS, f"base_0_rgb={LEFT},left_wrist_0_rgb={LEFT}", "a camera fills two"),
        (OPENPI_SLOTS, f"base_0_rgb={LEFT},base_0_rgb={RIGHT}", "fills slot 'base_0_rgb' twice"),
    ],
)
def test_wrong_or_missing_cameras_are_named(slots, given, words):
    with pytest.raises(ConfigError, match=words):
        map_cameras(origin(*slots), PANDA, given)
