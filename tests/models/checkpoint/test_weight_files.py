"""Which files of a checkpoint are read, and what the files beside them tell."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.micro import DATA, MICRO, OPENPI, directory_with, openpi_weights, refusal, saved

from z1_ros.errors import CheckpointError
from z1_ros.models.checkpoint.loading import describe, infer_geometry, load_checkpoint
from z1_ros.models.checkpoint.weight_files import INDEX


@pytest.fixture
def sharded(tmp_path):
    """A directory with the weights in three shards."""
    openpi, shards = openpi_weights(), {}
    keys = sorted(openpi)
    for i in range(3):
        name = f"model-{i + 1:05}-of-00003.safetensors"
        saved({key: openpi[key] for key in keys[i::3]}, tmp_path / name)
        shards |= dict.fromkeys(keys[i::3], name)
    write_index(tmp_path, shards)
    return tmp_path


def write_index(directory, shards):
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}))


def read_index(directory):
    return json.loads((directory / INDEX).read_text())["weight_map"]


def test_shards_are_one_checkpoint(sharded):
    reference = load_checkpoint(OPENPI, MICRO).state_dict()
    assert len({tensor.file for tensor in describe(sharded).stored}) == 3
    for path in (sharded, sharded / INDEX):
        for name, tensor in load_checkpoint(path, MICRO).state_dict().items():
            assert torch.equal(tensor, reference[name])


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    text = refusal(describe, sharded)
    assert "lacks the shard model-00002-of-00003.safetensors (31 tensors)" in text


def test_a_tensor_in_two_shards_is_read_where_the_index_says_or_refused(sharded):
    index, key = read_index(sharded), "action_in_proj.bias"
    other = next(name for name in index.values() if name != index[key])
    saved({**load_file(sharded / other), key: torch.zeros(32)}, sharded / other)
    assert describe(sharded).tensors[key].file.name == index[key]
    write_index(sharded, {k: name for k, name in index.items() if k != key})
    assert f"does not name {key}, which lies in " in refusal(describe, sharded)


def test_an_index_that_names_what_no_shard_has_is_refused(sharded):
    shards = read_index(sharded)
    write_index(sharded, {**shards, "more.weight": "model-00001-of-00003.safetensors"})
    assert "names 1 tensors that its shards lack: more.weight" in refusal(describe, sharded)
    shards["action_in_proj.bias"] = "model-00003-of-00003.safetensors"
    write_index(sharded, shards)
    assert "that its shards lack: action_in_proj.bias" in refusal(describe, sharded)


@pytest.mark.parametrize("shard", ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors"])
def test_a_shard_outside_the_directory_is_refused(sharded, shard):
    write_index(sharded, {**read_index(sharded), "x": shard})
    assert f"names the shard {shard!r}" in refusal(describe, sharded)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_a_malformed_index_is_named(sharded, text):
    (sharded / INDEX).write_text(text)
    assert INDEX in refusal(describe, sharded)


def test_one_shard_is_not_the_checkpoint(sharded):
    assert "one shard of several" in refusal(describe, sharded / "model-00001-of-00003.safetensors")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorch_model.bin", "is a pickle"),
        ("pytorch_model.bin.index.json", "is a pickle"),
        ("full_weights.pt", "is a pickle"),
        ("adapter_model.safetensors", "only a PEFT adapter"),
        ("adapter_config.json", "only a PEFT adapter"),
        ("params/_METADATA", r"is a JAX \(orbax\) checkpoint"),
        ("manifest.ocdbt", r"is a JAX \(orbax\) checkpoint"),
        ("readme.md", "has no model.safetensors"),
    ],
)
def test_directories_of_other_formats_are_refused_each_by_its_own_sentence(name, words, tmp_path):
    path = tmp_path / "given" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=words):
        describe(tmp_path / "given")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.ckpt", "is a pickle"),
        ("model.pth", "is a pickle"),
        ("adapter_model.safetensors", "only a PEFT adapter"),
        ("model.onnx", "is not a .safetensors file"),
    ],
)
def test_files_of_other_formats_are_refused_each_by_its_own_sentence(name, words, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=words):
        describe(tmp_path / name)


def test_where_the_weights_are_a_step_away_the_error_says_so(tmp_path):
    (tmp_path / "pretrained_model").mkdir()
    shutil.copy(OPENPI, tmp_path / "pretrained_model" / "model.safetensors")
    assert f"did you mean {tmp_path / 'pretrained_model'}?" in refusal(describe, tmp_path)
    assert "no checkpoint at" in refusal(describe, tmp_path / "nowhere")


@pytest.mark.parametrize("kept", [0, 5, 5000, -1])
def test_a_file_that_was_cut_short_is_not_read(kept, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(OPENPI.read_bytes()[:kept])
    assert "not a readable safetensors file, or cut short" in refusal(describe, path)


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7473096344\n")
    assert "Git LFS pointer" in refusal(describe, tmp_path)


def test_lerobots_configuration_tells_the_inputs(tmp_path):
    config = json.loads((DATA / "lerobot_config.json").read_text())
    path = directory_with(tmp_path, "config.json", config)
    assert infer_geometry(describe(path), vision_heads=4) == MICRO
    config["empty_cameras"] = 1
    feature = config["input_features"]["observation.images.base_0_rgb"]
    for _ in range(2):
        directory_with(tmp_path, "config.json", config)
        assert infer_geometry(describe(path), vision_heads=4).cameras == 4
        # A saved configuration lists the empty camera as a feature as well.
        config["input_features"]["observation.images.empty_camera_0"] = feature


def test_openpis_configuration_tells_the_inputs(tmp_path):
    config = {"action_dim": 32, "action_horizon": 10, "paligemma_variant": "gemma_2b"}
    path = directory_with(tmp_path, "config.json", config)
    geometry = infer_geometry(describe(path), vision_heads=4)
    assert (geometry.horizon, geometry.cameras, geometry.prompt_tokens) == (10, 3, 200)


def test_another_policy_of_lerobot_is_refused_by_its_type(tmp_path):
    directory_with(tmp_path, "config.json", {"type": "smolvla"})
    weights = {"model.vlm_with_expert.lm_expert.norm.weight": torch.zeros(3)}
    saved(weights, tmp_path / "model.safetensors")
    assert "says type 'smolvla'" in refusal(describe, tmp_path)


def test_pi0_is_recognised_by_its_weights_whatever_the_configuration_says(tmp_path):
    weights = openpi_weights()
    pi0 = {key.replace("time_mlp_", "action_time_mlp_"): t for key, t in weights.items()}
    for kind in ("pi0", "pi05"):
        directory_with(tmp_path, "config.json", {"type": kind})
        saved(pi0, tmp_path / "model.safetensors")
        assert "is a π0 checkpoint" in refusal(describe, tmp_path)
