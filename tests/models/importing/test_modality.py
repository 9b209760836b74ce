"""Columns have a stated order without gaps, and image slots the cameras they were trained with."""

import json

import pytest
from support.foreign import BASE_FIRST, EE_FIRST, modality, write_json

from z1_ros.errors import CheckpointError, ConfigError
from z1_ros.models.checkpoint.foreign_config import OPENPI_SLOTS
from z1_ros.models.importing.modality import (
    choose_order,
    columns,
    fields_of,
    map_cameras,
    read_modality,
)
from z1_ros.models.importing.origin import Origin
from z1_ros.specs import PANDA, PANDA_OMRON

LEFT, RIGHT, WRIST = PANDA.cameras


@pytest.mark.parametrize("order", [EE_FIRST, BASE_FIRST], ids=["ee-first", "base-first"])
def test_columns_decide_the_order_not_the_file(tmp_path, order):
    file = write_json(tmp_path / "modality.json", modality(order))
    read = read_modality(file, PANDA_OMRON)
    assert (read.state, read.action) == (order.state, order.action)


def test_cameras_are_named_by_their_features(tmp_path):
    data = modality(EE_FIRST)
    data["video"] = {
        "left": {"original_key": "observation.images.image"},
        "wrist": {},
    }
    order = read_modality(write_json(tmp_path / "modality.json", data), PANDA_OMRON)
    assert order.cameras == {"image": "left", "wrist": "wrist"}
    data["video"] = ["left"]
    with pytest.raises(CheckpointError, match="video must map names to objects"):
        read_modality(write_json(tmp_path / "modality.json", data), PANDA_OMRON)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gripper_close": {"start": 7, "end": 8}}, "gripper_close starts at column 7, .* a gap"),
        ({"base_motion": {"start": 5, "end": 9}}, "base_motion starts at column 5, .* overlaps"),
        ({"end_effector_position": {"start": 0, "end": 2}}, "has 2 columns, .* it has 3"),
        ({"gripper_close": {"start": 6.0, "end": 7}}, "needs whole numbers start < end"),
        ({"gripper_close": {"start": 7, "end": 6}}, "needs whole numbers start < end"),
        ({"gripper_close": None}, "needs whole numbers start < end"),
        ({"gripper_close": {"original_key": "x", "start": 6, "end": 7}}, "several vectors"),
    ],
)
def test_columns_that_do_not_add_up_are_refused(tmp_path, change, words):
    data = modality(EE_FIRST, keys=(None, None))
    data["action"] |= change
    with pytest.raises(CheckpointError, match=words):
        read_modality(write_json(tmp_path / "modality.json", data), PANDA_OMRON)


def test_unknown_fields_are_refused_with_a_suggestion(tmp_path):
    data = modality(EE_FIRST)
    data["action"]["gripper_closed"] = data["action"].pop("gripper_close")
    file = write_json(tmp_path / "modality.json", data)
    with pytest.raises(ConfigError, match=r"'gripper_closed'.*Did you mean 'gripper_close'"):
        read_modality(file, PANDA_OMRON)


def test_a_file_without_fields_is_refused(tmp_path):
    for content in ("{}", '{"state": [], "action": {}}', json.dumps({"state": {}})):
        file = tmp_path / "modality.json"
        file.write_text(content)
        with pytest.raises(CheckpointError, match="has no state fields"):
            read_modality(file, PANDA_OMRON)


def test_an_order_is_stated_found_or_the_robots_own(tmp_path):
    own = choose_order(PANDA_OMRON, tmp_path)
    assert own.state == tuple(field.name for field in PANDA_OMRON.state)
    assert own.spelled_out == ()
    assert choose_order(PANDA_OMRON, None).action == own.action
    for place in ("meta/modality.json", "modality.json"):
        write_json(tmp_path / place, modality(BASE_FIRST))
        assert choose_order(PANDA_OMRON, tmp_path).state == BASE_FIRST.state
    assert choose_order(PANDA_OMRON, tmp_path, modality="ee-first") == EE_FIRST
    elsewhere = write_json(tmp_path / "elsewhere.json", modality(EE_FIRST))
    assert choose_order(PANDA_OMRON, tmp_path, modality=str(elsewhere)).state == EE_FIRST.state
    with pytest.raises(ConfigError, match=r"no order 'ee_first': expected ee-first or base-first"):
        choose_order(PANDA_OMRON, tmp_path, modality="ee_first")


def test_fields_may_be_stated_one_by_one():
    order = choose_order(PANDA, None, state="gripper_qpos, joint_position")
    assert order.state == ("gripper_qpos", "joint_position")
    assert order.action == tuple(field.name for field in PANDA.action)
    assert order.spelled_out == ("state",) and "--state as given" in order.source


def test_a_field_twice_or_of_another_robot_is_refused():
    with pytest.raises(ConfigError, match="'gripper_qpos' is named twice"):
        fields_of(("gripper_qpos", "gripper_qpos"), PANDA, "state")
    with pytest.raises(ConfigError, match="robot 'panda' has no action field 'base_motion'"):
        fields_of(EE_FIRST.action, PANDA, "action")


def test_the_table_has_a_row_a_field():
    rows = columns(fields_of(EE_FIRST.action, PANDA_OMRON, "action"))
    assert rows[0] == ("0–2", "end_effector_position", "x y z")
    assert rows[2] == ("6", "gripper_close", "close")
    assert rows[-1] == ("11", "control_mode", "base")


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
