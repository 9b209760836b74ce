"""Steps of LeRobot's processors."""

import pytest
from support.foreign import DATA, write_json

from z1_ros.errors import CheckpointError
from z1_ros.models.importing.lerobot_steps import PREPROCESSOR, find_step, read_steps


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
