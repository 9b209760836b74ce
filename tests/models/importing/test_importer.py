"""A public checkpoint becomes a bundle that acts as its own project's code would, or nothing."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file, save_file
from support.foreign import (
    BASE_FIRST,
    BASE_STATS,
    DATA,
    EE_FIRST,
    EE_STATS,
    WEIGHTS,
    edit_json,
    edit_normalizers,
    import_config,
    import_quietly,
    openpi_stats,
    samples,
    stats_of,
    write_json,
    write_lerobot,
    write_lerobot_stats,
    write_openpi,
    write_tokenizer,
)
from tokenizers import Tokenizer

from z1_ros.errors import CheckpointError, ConfigError
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.models.checkpoint.loading import describe, load_checkpoint
from z1_ros.models.importing.importer import main
from z1_ros.models.network.geometry import Geometry
from z1_ros.policy.backends import load_policy
from z1_ros.policy.transforms import Preprocessor, unnormalize
from z1_ros.policy.vla import flow_noise
from z1_ros.specs import PANDA_OMRON
from z1_ros.types import Observation

LEFT, RIGHT, WRIST = PANDA_OMRON.cameras


@pytest.fixture
def openpi(tmp_path):
    return write_openpi(tmp_path / "pi05_robocasa", EE_STATS)


@pytest.fixture
def lerobot(tmp_path):
    return write_lerobot(tmp_path / "pi05_kitchen", BASE_STATS)


def observation():
    random = np.random.default_rng(3)
    values = samples()
    return Observation(
        images={c: random.integers(0, 256, (48, 64, 3), np.uint8) for c in PANDA_OMRON.cameras},
        state={f.name: values[f.name][7].astype(np.float32) for f in PANDA_OMRON.state},
        instruction="open the left drawer",
        stamp_ns=5,
    )


def chunk_by_hand(checkpoint, seen, cameras, resize, state):
    """Return normalised actions (10, 32) of the checkpoint's own weights and these inputs."""
    geometry = Geometry(**load_bundle(checkpoint.parent / "bundle").manifest.geometry)
    network = load_checkpoint(describe(checkpoint), geometry).eval()
    images = torch.full((1, 3, 3, 56, 56), -1.0)
    for slot, camera in enumerate(cameras):
        if camera:
            # 64 x 48 becomes 56 x 42, seven rows of black above and below.
            images[0, slot, :, 7:49] = resize(seen.images[camera])
    bins = np.digitize(state, np.linspace(-1, 1, 257)[:-1]) - 1
    text = f"Task: {seen.instruction}, State: {' '.join(map(str, bins))};\nAction: "
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = [2, *tokenizer.encode(text, add_special_tokens=False).ids]
    tokens = torch.zeros((1, geometry.prompt_tokens), dtype=torch.int64)
    tokens[0, : len(ids)] = torch.tensor(ids)
    image_mask = torch.tensor([[camera is not None for camera in cameras]])
    noise = torch.from_numpy(flow_noise(0, seen.stamp_ns, (10, 32)))[None]
    with torch.no_grad():
        prefix = network.prefix(images, image_mask, tokens, tokens > 0)
        return network.sample(prefix, noise, 10)[0].numpy()


def as_lerobot(image):
    scaled = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(scaled, (42, 56), mode="bilinear", align_corners=False)[0] * 2 - 1


def as_openpi(image):
    small = np.asarray(Image.fromarray(image).resize((56, 42), Image.Resampling.BILINEAR))
    return torch.from_numpy(small.astype(np.float32)).permute(2, 0, 1) / 255 * 2 - 1


def act(bundle, seen):
    policy = load_policy(bundle.path, backend="torch", threads=1)
    policy.reset(0)
    return policy.infer(seen)


def test_a_lerobot_policy_acts_as_in_lerobot(lerobot):
    bundle = import_quietly(import_config(lerobot, modality="base-first"))
    seen = observation()
    chunk = act(bundle, seen)
    q01, q99 = (np.float32(BASE_STATS["state"][part]) for part in ("q01", "q99"))
    raw = np.concatenate([seen.state[name] for name in BASE_FIRST.state])
    with np.errstate(divide="ignore", invalid="ignore"):
        state = np.where(q99 > q01, 2 * (raw - q01) / (q99 - q01) - 1, -1)
    normalised = chunk_by_hand(lerobot, seen, (LEFT, WRIST, RIGHT), as_lerobot, state)
    q01, q99 = (np.float32(BASE_STATS["action"][part]) for part in ("q01", "q99"))
    expected = (normalised[:, :12] + 1) * (q99 - q01) / 2 + q01
    np.testing.assert_allclose(chunk.actions, expected, atol=1e-4)
    assert chunk.dims[0] == "base_motion.forward" and chunk.dims[-1] == "gripper_close.close"


def test_an_openpi_policy_acts_as_in_openpi(openpi):
    """As RoboCasa365's: z-scores, statistics padded to 32, one camera missing."""
    write_json(
        openpi / "assets" / "robot" / "norm_stats.json", openpi_stats(stats_of(EE_FIRST, pad=32))
    )
    cameras = f"base_0_rgb={LEFT},right_wrist_0_rgb={RIGHT}"
    bundle = import_quietly(
        import_config(openpi, cameras=cameras, norm_mode="mean_std", prompt_tokens=160)
    )
    seen = observation()
    chunk = act(bundle, seen)
    mean, std = (np.asarray(EE_STATS["state"][part]) for part in ("mean", "std"))
    raw = np.concatenate([seen.state[name] for name in EE_FIRST.state])
    state = (raw - mean) / (std + 1e-6)
    normalised = chunk_by_hand(openpi, seen, (LEFT, None, RIGHT), as_openpi, state)
    mean, std = (np.asarray(EE_STATS["action"][part]) for part in ("mean", "std"))
    np.testing.assert_allclose(chunk.actions, normalised[:, :12] * (std + 1e-6) + mean, atol=1e-4)
    assert chunk.dims == PANDA_OMRON.action_dims
    assert bundle.manifest.contract.cameras == (LEFT, RIGHT) and bundle.manifest.image.slots == 3


def test_lerobots_own_processor_files_give_its_golden_prompt_and_actions(lerobot):
    for name in (DATA / "processor").glob("policy_*"):
        shutil.copyfile(name, lerobot / name.name)
    # The golden statistics are random numbers, which no robot has.
    bundle = import_quietly(import_config(lerobot, allow_suspicious_stats=True))
    golden = json.loads((DATA / "processor" / "processor_golden.json").read_text())
    manifest, state, at = bundle.manifest, {}, 0
    for field in manifest.contract.state:
        state[field.name] = np.float32(golden["raw_state"][at : at + field.size])
        at += field.size
    tokenizer = PromptTokenizer(bundle.tokenizer, 160)
    seen = replace(observation(), state=state, instruction=golden["task"])
    tokens, valid = Preprocessor(manifest, tokenizer).prompt(seen)
    assert tokens[valid].tolist() == tokenizer.ids(golden["prompt"])
    scaling = manifest.normalization
    actions = unnormalize(
        np.array(golden["action_normalized"]), scaling.action, scaling.action_mode, scaling.form
    )
    np.testing.assert_array_equal(actions, np.float32(golden["action_unnormalized"]))


def test_statistics_that_are_not_finite_are_named(lerobot):
    stats = stats_of(BASE_FIRST)
    stats["state"]["q01"][3] = float("nan")
    write_lerobot_stats(lerobot, stats)
    with pytest.raises(CheckpointError, match="q01 of number 3 is not finite"):
        import_quietly(import_config(lerobot, modality="base-first"))


def test_the_manifest_says_what_was_decided(lerobot):
    file = lerobot.parent / "decided.json"
    decided = main(import_config(lerobot, modality="base-first", json=file, denoise_steps=4))
    manifest = load_bundle(lerobot.parent / "bundle").manifest
    assert (manifest.denoise_steps, manifest.replan_steps, manifest.contract.horizon) == (4, 8, 10)
    assert manifest.image.resize == "bilinear" and manifest.normalization.form == "lerobot"
    assert manifest.made_by["command"] == (
        "z1-import pi05_kitchen --embodiment panda_omron --out bundle --modality base-first "
        "--vision-heads 4 --denoise-steps 4"
    )
    assert manifest.made_by["source"]["layout"] == "lerobot"
    assert str(lerobot.parent) not in json.dumps(decided)
    read = json.loads(file.read_text())
    assert read["slots"] == {camera: camera for camera in (LEFT, WRIST, RIGHT)}


def test_openpi_files_give_openpis_defaults(openpi):
    manifest = import_quietly(import_config(openpi)).manifest
    assert manifest.image.resize == "bilinear_antialias"
    assert manifest.normalization.form == "openpi" and manifest.normalization.mode == "quantile"
    assert (manifest.replan_steps, manifest.prompt.max_tokens) == (5, 200)
    assert "quantile is π0.5's default" in manifest.made_by["notes"][0]


def test_dead_weights_are_left_out_and_types_kept(openpi):
    kept = load_file(import_quietly(import_config(openpi)).path / "model.safetensors")
    assert not [name for name in kept if "lm_head" in name or name == "vlm.norm.weight"]
    theirs = load_file(WEIGHTS)
    embedding = theirs["paligemma_with_expert.paligemma.lm_head.weight"]
    np.testing.assert_array_equal(kept["vlm.embed_tokens.weight"], embedding)
    made = import_config(openpi, dtype="bfloat16", out=openpi.parent / "half")
    dtypes = {t.dtype for t in describe(import_quietly(made).path).tensors.values()}
    assert dtypes == {"BF16", "F32"}


def test_a_sharded_checkpoint_is_one_file_afterwards(openpi):
    tensors = load_file(openpi / "model.safetensors")
    names = sorted(tensors)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    (openpi / "model.safetensors").unlink()
    for shard, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, openpi / shard)
    weight_map = {key: shard for shard, keys in shards.items() for key in keys}
    write_json(openpi / "model.safetensors.index.json", {"weight_map": weight_map})
    bundle = import_quietly(import_config(openpi))
    assert list(bundle.manifest.made_by["source"]["sha256"]) == sorted(shards)
    assert (bundle.path / "model.safetensors").is_file()


def test_a_bare_file_needs_what_it_does_not_say(openpi, tmp_path):
    file = (openpi / "model.safetensors").rename(tmp_path / "weights.safetensors")
    tokenizer = str(write_tokenizer(tmp_path / "tokenizer.json"))
    bare = import_config(file, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match=r"pass --horizon \(50 for pi05_base"):
        import_quietly(bare)
    with pytest.raises(ConfigError, match="bare file of weights: pass --norm-stats"):
        import_quietly(replace(bare, horizon=10))
    stats = openpi / "assets" / "robot" / "norm_stats.json"
    assert (
        import_quietly(replace(bare, horizon=10, norm_stats=stats)).manifest.contract.horizon == 10
    )


def test_a_policy_without_state_asks_none_of_the_robot(openpi):
    """As openpi's pi05_libero."""
    edit_json(
        openpi / "assets" / "robot" / "norm_stats.json",
        lambda d: d["norm_stats"].pop("state"),
    )
    with pytest.raises(CheckpointError, match="no statistics of the state"):
        import_quietly(import_config(openpi))
    bundle = import_quietly(import_config(openpi, discrete_state=False))
    assert bundle.manifest.contract.state == () and not bundle.manifest.prompt.discrete_state
    seen = replace(observation(), state={})
    assert np.isfinite(act(bundle, seen).actions).all()


def test_lerobots_preprocessor_decides_about_the_state(lerobot):
    edit_json(lerobot / "policy_preprocessor.json", lambda d: d["steps"].pop(4))
    made = import_config(lerobot, modality="base-first")
    with pytest.raises(ConfigError, match="pass --no-discrete-state"):
        import_quietly(made)
    assert import_quietly(replace(made, discrete_state=False)).manifest.contract.state == ()


def test_modes_of_lerobots_norm_map_are_mapped(lerobot):
    norm_map = {"VISUAL": "IDENTITY", "STATE": "MIN_MAX", "ACTION": "IDENTITY"}
    edit_normalizers(lerobot, lambda step: step["config"].update(norm_map=norm_map))
    scaling = import_quietly(import_config(lerobot, modality="base-first")).manifest.normalization
    assert (scaling.mode, scaling.action_mode) == ("quantile", "mean_std")
    assert scaling.state.q01 == tuple(BASE_STATS["state"]["min"])
    assert scaling.state.q99 == tuple(BASE_STATS["state"]["max"])
    assert set(scaling.action.mean) == {0.0} and set(scaling.action.std) == {1.0}


@pytest.mark.parametrize("mode", ["QUANTILES", "IDENTITY"])
def test_a_gripper_between_zero_and_one_commands_minus_one_and_one(lerobot, mode):
    values = samples()
    closed = (values["gripper_close"] + 1) / 2
    write_lerobot_stats(lerobot, stats_of(BASE_FIRST, gripper_close=closed))
    norm_map = {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": mode}
    edit_normalizers(lerobot, lambda step: step["config"].update(norm_map=norm_map))
    manifest = import_quietly(import_config(lerobot, modality="base-first")).manifest
    stats = manifest.normalization.action
    if mode == "QUANTILES":
        assert (stats.q01[-1], stats.q99[-1]) == (-1, 1)
    else:
        assert (stats.mean[-1], stats.std[-1]) == (-1, 2)
    assert "gripper_close.close is 0 or 1" in " ".join(manifest.made_by["notes"])
