"""Bundles with random weights."""

import pytest
from support.tiny_bundle import TINY

from z1_ros.errors import ConfigError
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle
from z1_ros.models.bundle.random_bundle import write_random_bundle
from z1_ros.models.checkpoint.loading import describe
from z1_ros.specs import PANDA, PANDA_OMRON


def test_it_is_whole_and_a_function_of_its_seed(tmp_path) -> None:
    made = [
        write_random_bundle(tmp_path / name, TINY, PANDA, "bfloat16", seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    hashes = [bundle.manifest.files[WEIGHTS] for bundle in made]
    assert hashes[0] == hashes[1] != hashes[2]
    assert load_bundle(made[0].path).manifest == made[0].manifest
    assert describe(made[0].path).dtypes == ("BF16", "F32")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b", "c"]


def test_experts_have_weights_of_their_own(tmp_path) -> None:
    made = write_random_bundle(tmp_path / "a", TINY, PANDA, "float32", experts=("x", "y"))
    files = made.manifest.files
    assert files["expert_x.safetensors"] != files["expert_y.safetensors"]
    assert made.manifest.expert_for("x") == "x" and made.manifest.expert_for("z") == ""


def test_a_robot_that_does_not_fit_and_a_folder_in_use_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="'panda_omron' has 3 cameras and 12 action"):
        write_random_bundle(tmp_path / "a", TINY, PANDA_OMRON, "float32")
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="is not empty"):
        write_random_bundle(tmp_path, TINY, PANDA, "float32")
