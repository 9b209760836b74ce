"""``config.json`` and the processors' steps beside a checkpoint's weights."""

import json
import time

import pytest
from support.foreign import DATA, edit_json, write_json

from z1_ros.errors import CheckpointError
from z1_ros.models.checkpoint.foreign_config import (
    CONFIG,
    OPENPI_SLOTS,
    PREPROCESSOR,
    find_step,
    read_config,
    read_steps,
)


@pytest.fixture
def lerobot(tmp_path):
    (tmp_path / CONFIG).write_bytes((DATA / "processor" / CONFIG).read_bytes())
    return tmp_path


def test_lerobots_file_says_nearly_everything(lerobot) -> None:
    found = read_config(lerobot)
    assert found.kind == "lerobot"
    assert found.slots[0] == "robot0_agentview_left" and found.sizes["cameras"] == 3
    assert found.vectors == {"state": 16, "action": 12}
    assert (found.denoise_steps, found.replan_steps) == (10, 50)
    assert found.settings["normalization_mapping"]["STATE"] == "QUANTILES"


def test_openpis_file_says_two_sizes(tmp_path) -> None:
    write_json(tmp_path / CONFIG, {"action_dim": 32, "action_horizon": 10, "dtype": "bfloat16"})
    found = read_config(tmp_path)
    assert (found.kind, found.slots) == ("openpi", OPENPI_SLOTS)
    assert found.sizes == {"action_dim": 32, "horizon": 10, "cameras": 3, "prompt_tokens": 200}
    write_json(tmp_path / CONFIG, {"other": 1})
    assert read_config(tmp_path).sizes == {}


def test_no_file_is_no_configuration(tmp_path) -> None:
    assert read_config(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "pi0"}, "says type 'pi0'; only 'pi05'"),
        ({"type": None}, "says type null"),
        ({"n_obs_steps": 2}, "says n_obs_steps 2; only 1"),
        ({"min_period": 0.1}, "says min_period 0.1; only 0.004"),
        ({"use_visual_memory": True}, "says use_visual_memory True"),
        ({"use_visual_memory": [1]}, "says use_visual_memory list of 1"),
        ({"image_resolution": [224, 256]}, "expected two equal sides"),
        ({"image_resolution": []}, "image_resolution is list of 0, expected two equal sides"),
        ({"image_resolution": 224}, "image_resolution is 224"),
        ({"image_resolution": ["224", "224"]}, "image_resolution is '224'"),
        ({"chunk_size": 10**400}, "chunk_size is a long one"),
        ({"chunk_size": "50"}, "chunk_size is '50', expected a whole number"),
        ({"empty_cameras": 10**8}, "empty_cameras is 100000000"),
        ({"empty_cameras": 1000}, "and 1000 empty ones, more than 64"),
        ({"empty_cameras": -1}, "empty_cameras is -1"),
        ({"n_action_steps": 0}, "n_action_steps is 0, expected a whole number"),
        ({"num_inference_steps": True}, "num_inference_steps is True"),
        ({"input_features": {"observation.state": {"shape": [1]}}}, "must map names"),
        ({"input_features": [1]}, "input_features must map names"),
        ({"input_features": {"observation.state": {"shape": [], "type": "STATE"}}}, "must map"),
        ({"output_features": {"action": {"shape": ["a"], "type": "ACTION"}}}, "must map"),
    ],
)
def test_what_is_malformed_or_unsupported_is_one_sentence_at_once(lerobot, change, words) -> None:
    edit_json(lerobot / CONFIG, lambda data: data.update(change))
    started = time.monotonic()
    with pytest.raises(CheckpointError) as error:
        read_config(lerobot)
    text = str(error.value)
    assert words in text and CONFIG in text and "\n" not in text
    assert time.monotonic() - started < 1


def test_unreadable_json_is_named(tmp_path) -> None:
    for text in ("{", "[]", "[" * 100_000, json.dumps({"a": 1})[:-1]):
        (tmp_path / CONFIG).write_text(text)
        with pytest.raises(CheckpointError, match=CONFIG):
            read_config(tmp_path)


def test_a_published_processor_is_read_in_order() -> None:
    steps = read_steps(DATA / "processor" / PREPROCESSOR)
    assert steps[0].name == "rename_observations_processor"
    normalizer = find_step(steps, "normalizer_processor")
    assert normalizer is not None and normalizer.state_file is not None
    assert normalizer.config["norm_map"]["STATE"] == "QUANTILES"
    assert find_step(steps, "none") is None


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({}, "step 0 needs a registry_name"),
        ({"registry_name": 3}, "needs a registry_name"),
        ({"class": "x", "config": []}, "an object as config"),
        ({"class": "x", "state_file": "../x"}, "state_file '../x', not a plain file name"),
        ({"class": "x", "state_file": ["a" * 500]}, "state_file list of 1"),
    ],
)
def test_a_malformed_step_is_named(tmp_path, step, words) -> None:
    path = write_json(tmp_path / PREPROCESSOR, {"steps": [step]})
    with pytest.raises(CheckpointError, match=words) as error:
        read_steps(path)
    assert PREPROCESSOR in str(error.value)
