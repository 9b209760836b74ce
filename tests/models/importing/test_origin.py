"""What LeRobot's configuration says is taken over; what it asks and we lack is refused."""

import shutil
from dataclasses import replace

import pytest
from support.foreign import DATA, edit_json, pad_features, write_json

from z1_ros.errors import CheckpointError
from z1_ros.models.checkpoint.foreign_config import OPENPI_SLOTS, read_config
from z1_ros.models.checkpoint.layouts import Layout
from z1_ros.models.checkpoint.loading import Checkpoint
from z1_ros.models.importing.origin import Origin, read_origin

CONFIG, PREPROCESSOR = "config.json", "policy_preprocessor.json"


@pytest.fixture
def lerobot(tmp_path):
    for name in (CONFIG, PREPROCESSOR, "policy_postprocessor.json"):
        shutil.copyfile(DATA / "processor" / name, tmp_path / name)
    return tmp_path


def read(path, ignored=(), layout="lerobot"):
    config = read_config(path) if path.is_dir() else None
    return read_origin(Checkpoint(path, Layout(name=layout, depth=2), (), config), ignored)


def test_a_lerobot_policy_says_nearly_everything(lerobot):
    said = read(lerobot)
    assert replace(said, sizes={}, settings={}) == Origin(
        kind="lerobot",
        slots=("robot0_agentview_left", "robot0_eye_in_hand", "robot0_agentview_right"),
        denoise_steps=10,
        replan_steps=50,
        vectors={"state": 16, "action": 12},
        modes={"state": "QUANTILES", "action": "QUANTILES"},
        tokenizer="google/paligemma-3b-pt-224",
    )


def test_openpi_and_bare_weights_have_openpis_slots(tmp_path):
    write_json(tmp_path / CONFIG, {"action_dim": 32, "action_horizon": 10})
    bare = tmp_path / "weights.safetensors"
    for path in (tmp_path, bare):
        said = read(path, layout="openpi")
        assert (said.kind, said.slots, said.replan_steps) == ("openpi", OPENPI_SLOTS, 5)
    assert read(bare).kind == "lerobot"


def test_empty_cameras_come_last(lerobot):
    feature = {"type": "VISUAL", "shape": [3, 224, 224]}
    edit_json(
        lerobot / CONFIG,
        lambda d: d.update(
            empty_cameras=2,
            input_features={"observation.images.empty_camera_0": feature} | d["input_features"],
        ),
    )
    assert read(lerobot).slots[2:] == (
        "robot0_agentview_right",
        "empty_camera_0",
        "empty_camera_1",
    )


def test_padded_features_say_no_size(lerobot):
    pad_features(lerobot)
    assert read(lerobot).vectors == {}


def test_a_rename_map_is_read_for_cameras(lerobot):
    names = {
        "observation.images.front": "observation.images.base_0_rgb",
        "observation.qpos": "observation.state",
    }
    edit_json(lerobot / PREPROCESSOR, lambda d: d["steps"][0]["config"].update(rename_map=names))
    assert read(lerobot).renamed == {"base_0_rgb": "front"}


def test_a_preprocessor_without_the_state_step_has_no_state_in_the_prompt(lerobot):
    edit_json(lerobot / PREPROCESSOR, lambda d: d["steps"].pop(4))
    assert not read(lerobot).discrete_state


def test_an_old_release_leaves_a_note(lerobot):
    assert read(lerobot).notes == ()
    edit_json(lerobot / CONFIG, lambda d: d.pop("use_relative_actions"))
    assert "padded the state" in read(lerobot).notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_relative_actions": True}, "relative actions are not supported"),
        ({"use_peft": True}, "must be merged first"),
        ({"normalization_mapping": {"STATE": "L2"}}, "normalises the state by 'L2'"),
    ],
)
def test_configurations_that_are_not_supported_are_refused(lerobot, change, words):
    edit_json(lerobot / CONFIG, lambda d: d.update(change))
    with pytest.raises(CheckpointError, match=words):
        read(lerobot)


@pytest.mark.parametrize(
    ("file", "place", "step", "words"),
    [
        (PREPROCESSOR, 2, "relative_actions_processor", "actions relative to the state"),
        (PREPROCESSOR, 2, "delta_actions_processor", "actions relative to the state"),
        ("policy_postprocessor.json", 1, "absolute_actions_processor", "relative to the state"),
        (PREPROCESSOR, 2, "crop_processor", "pass --ignore-steps crop_processor"),
    ],
)
def test_steps_that_change_what_the_network_sees_are_refused(lerobot, file, place, step, words):
    edit_json(
        lerobot / file,
        lambda d: d["steps"][place].update(registry_name=step, config={"enabled": True}),
    )
    with pytest.raises(CheckpointError, match=words) as error:
        read(lerobot)
    assert file in str(error.value)


def test_unknown_steps_can_be_passed_over(lerobot):
    edit_json(lerobot / PREPROCESSOR, lambda d: d["steps"].append({"registry_name": "log"}))
    assert read(lerobot, ignored=("log",)).kind == "lerobot"


def test_processors_without_steps_are_malformed(lerobot):
    for content in ("{}", '{"steps": 3}', '{"steps": [3]}'):
        (lerobot / PREPROCESSOR).write_text(content)
        with pytest.raises(CheckpointError, match="has no list of steps"):
            read(lerobot)
