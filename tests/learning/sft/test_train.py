"""The whole of z1-sft on a tiny world: demonstrations in, a working bundle out."""

import json
from dataclasses import replace

import pytest
import torch
from support.demonstrations import make_demos
from support.reach_env import ReachEnv

from z1_ros.errors import ConfigError, ContractMismatch, TrainingError, Z1Error
from z1_ros.learning.sft import train as sft
from z1_ros.learning.sft.config import TrainConfig
from z1_ros.learning.sft.dataset import Augmentation
from z1_ros.learning.sft.start import STATE_FIELDS
from z1_ros.learning.sft.train import SFTConfig
from z1_ros.models.bundle.manifest import ImageSpec, load_bundle, write_manifest
from z1_ros.models.checkpoint.loading import load_network, read_tensors, write_tensors
from z1_ros.models.network.geometry import PRESETS, Geometry
from z1_ros.policy.backends import load_policy
from z1_ros.runtime.lock import locked
from z1_ros.specs import PANDA, check_contract

STATS = ("mean", "std", "q01", "q99")
SMALL = replace(
    PRESETS["small"],
    image_size=48,
    patch=8,
    vision_width=48,
    vision_depth=2,
    vision_mlp=96,
    depth=2,
    head_dim=16,
    vlm_width=48,
    vlm_mlp=96,
    expert_width=48,
    expert_mlp=96,
    horizon=8,
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_demos(tmp_path_factory.mktemp("sft") / "demos", 10, image_size=48, frame_stride=1)


@pytest.fixture
def config(directory, tmp_path):
    return SFTConfig(
        bundle=tmp_path / "reach",
        run=tmp_path / "run",
        demos=directory,
        tasks="OpenDrawer",
        geometry="small",
        held_out=0.2,
        train=TrainConfig(steps=3, batch_size=4),
        device="cpu",
        export=False,
        json=tmp_path / "metrics.json",
    )


def test_a_bundle_comes_out_that_fits_the_robot_and_says_how_it_was_made(config):
    metrics = sft.main(config)
    bundle = load_bundle(config.bundle)
    manifest = bundle.manifest
    check_contract(manifest.contract, PANDA, manifest.name)
    assert manifest.name == "reach" and manifest.denoise_steps == 5
    assert [f.name for f in manifest.contract.state] == list(STATE_FIELDS)
    assert manifest.image.size == 48 and manifest.contract.horizon == 8
    assert {"model.safetensors", "tokenizer.json", "README.md"} <= set(manifest.files)
    card = (config.bundle / "README.md").read_text("utf-8")
    for fact in ("z1-sft", "| seed | 0 |", "8 successful demonstrations", "CPU cores"):
        assert fact in card
    assert metrics["steps"] == 3 and metrics["held_out_loss"] > 0
    assert json.loads(config.json.read_text("utf-8"))["frames"] == metrics["frames"]
    log = [json.loads(line) for line in (config.run / "log.jsonl").read_text("utf-8").splitlines()]
    assert log[0]["step"] == 3 and "loss" in log[0] and "held_out_loss" in log[-1]


def test_a_complete_run_is_not_trained_again_and_its_bundle_is_replaced_whole(config):
    first = sft.main(config)
    weights = (config.bundle / "model.safetensors").read_bytes()
    (config.bundle / "prefix.onnx").write_bytes(b"of older weights")
    again = sft.main(config)
    assert again["steps"] == 3 and again["held_out_loss"] == pytest.approx(first["held_out_loss"])
    assert (config.bundle / "model.safetensors").read_bytes() == weights
    assert not (config.bundle / "prefix.onnx").exists()
    assert sorted(p.name for p in config.bundle.parent.iterdir()) == [
        "metrics.json",
        "reach",
        "run",
    ]


def test_two_runs_in_one_folder_are_refused(config):
    config.run.mkdir()
    with locked(config.run), pytest.raises(Z1Error, match="run is in use"):
        sft.main(config)
    assert not config.bundle.exists()


def test_a_run_folder_of_other_settings_is_refused(config):
    sft.main(config)
    other = replace(config, train=replace(config.train, learning_rate=1.0))
    with pytest.raises(
        TrainingError,
        match=r"made with train\.learning_rate = 0\.001, now it is 1\.0; .* --no-resume",
    ):
        sft.main(other)
    assert sft.main(replace(other, resume=False))["steps"] == 3


@pytest.fixture
def init(config):
    """A trained bundle, whose settings are not the defaults."""
    sft.main(replace(config, denoise_steps=3, replan_steps=4))
    bundle = load_bundle(config.bundle)
    manifest = bundle.manifest
    prompt = replace(manifest.prompt, discrete_state=False)
    reversed_actions = replace(manifest.contract, action=manifest.contract.action[::-1])
    scaling = manifest.normalization
    wide = replace(scaling.action, q01=(-2.0,) * 7, q99=(2.0,) * 7)
    scaling = replace(scaling, action=wide, form="openpi", action_mode="mean_std")
    changed = {"prompt": prompt, "contract": reversed_actions, "normalization": scaling}
    return write_manifest(config.bundle, replace(manifest, **changed))


@pytest.fixture
def tuned(config, tmp_path):
    """A run that starts from ``init`` and changes nothing."""
    train = replace(config.train, learning_rate=1e-12)
    return replace(
        config, init=config.bundle, bundle=tmp_path / "tuned", run=tmp_path / "r", train=train
    )


def test_fine_tuning_starts_from_the_bundle_and_keeps_how_its_inputs_are_made(init, tuned):
    metrics = sft.main(tuned)
    bundle = load_bundle(tuned.bundle)
    manifest, before = bundle.manifest, init.manifest
    for name in ("contract", "prompt", "geometry", "denoise_steps", "replan_steps", "embodiment"):
        assert getattr(manifest, name) == getattr(before, name), name
    assert manifest.name == "tuned"
    assert manifest.made_by["init"] == {"name": "reach", "sha256": init.sha256}
    assert manifest.files["tokenizer.json"] == before.files["tokenizer.json"]
    ours, theirs = (read_tensors(b.path / "model.safetensors") for b in (bundle, init))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-6)
    assert metrics["parameters"] == sum(w.numel() for w in theirs.values())
    load_policy(tuned.bundle, backend="torch", threads=1)


def test_image_slots_without_a_camera_stay_empty(init, tuned):
    """Training leaves them out; to the network that is the same as a masked image."""
    manifest = init.manifest
    two = replace(manifest.contract, cameras=manifest.contract.cameras[1:])
    write_manifest(init.path, replace(manifest, contract=two))
    sft.main(tuned)
    made = load_bundle(tuned.bundle).manifest
    assert made.contract.cameras == two.cameras and made.image.slots == 3
    network = start_network(init)
    random = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 3, 48, 48, generator=random) * 2 - 1
    tokens = torch.randint(1, 999, (2, 48), generator=random)
    token_mask, image_mask = torch.ones(2, 48, dtype=bool), torch.tensor([[True, True, False]] * 2)
    masked = network.prefix(images, image_mask, tokens, token_mask)
    left_out = network.prefix(images[:, :2], image_mask[:, :2], tokens, token_mask)
    noise, time = torch.randn(2, 8, 12, generator=random), torch.full((2,), 0.5)
    found, expected = (network.denoise(noise, time, prefix) for prefix in (left_out, masked))
    torch.testing.assert_close(found, expected)


def test_normalization_is_fitted_anew_in_the_bundles_mode_unless_it_is_kept(init, tuned):
    sft.main(tuned)
    fitted = load_bundle(tuned.bundle).manifest.normalization
    own = init.manifest.normalization
    assert (fitted.mode, fitted.action_mode, fitted.form) == ("quantile", "mean_std", "openpi")
    assert fitted.state == own.state and fitted.action != own.action
    kept = replace(tuned, keep_normalization=True)
    with pytest.raises(
        TrainingError, match="made with keep_normalization = False, now it is True;"
    ):
        sft.main(kept)
    sft.main(replace(kept, resume=False))
    assert load_bundle(tuned.bundle).manifest.normalization == own
    with pytest.raises(ConfigError, match="keep_normalization needs init"):
        replace(kept, init=None)


def test_a_bfloat16_bundle_is_tuned_in_float32_and_stays_bfloat16(init, tuned):
    network = start_network(init).cast(torch.bfloat16)
    write_tensors(init.path / "model.safetensors", network.state_dict())
    write_manifest(init.path, init.manifest)
    train = replace(tuned.train, learning_rate=1e-2, lora_rank=2, precision="bfloat16", steps=2)
    sft.main(replace(tuned, train=train))
    stored = read_tensors(tuned.run / "checkpoint.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float32}
    ours = read_tensors(tuned.bundle / "model.safetensors")
    theirs = network.state_dict()
    assert {n: w.dtype for n, w in ours.items()} == {n: w.dtype for n, w in theirs.items()}
    assert torch.equal(ours["vlm.embed_tokens.weight"], theirs["vlm.embed_tokens.weight"])
    assert not torch.equal(ours["vlm.last.k_proj.weight"], theirs["vlm.last.k_proj.weight"])
    assert not torch.equal(ours["expert.norm.dense.weight"], theirs["expert.norm.dense.weight"])


def start_network(bundle):
    return load_network(bundle.path / "model.safetensors", Geometry(**bundle.manifest.geometry))


def test_a_frozen_vlm_is_trained_on_over_stored_features(init, tuned):
    train = replace(tuned.train, freeze_vlm=True, feature_store_gb=1.0, learning_rate=1e-2)
    sft.main(replace(tuned, train=train))
    ours, theirs = (read_tensors(p / "model.safetensors") for p in (tuned.bundle, init.path))
    moved = {name.split(".")[0] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert moved == {"expert", "time", "action_in_proj", "action_out_proj"}


def test_a_bundle_that_does_not_fit_the_demonstrations_is_refused_naming_both(init, tuned):
    manifest = init.manifest
    contract = manifest.contract

    def refused(error, match, config=tuned, **changes):
        write_manifest(init.path, replace(manifest, **changes))
        with pytest.raises(error, match=match):
            sft.main(config)

    seen = replace(contract, cameras=("head", *contract.cameras[1:]))
    refused(
        ContractMismatch, "model 'reach' needs camera 'head', which robot 'panda'", contract=seen
    )
    fast = replace(contract, control_hz=50.0)
    refused(ContractMismatch, "acts at 50.0 Hz but robot 'panda' runs at 20", contract=fast)
    fewer = {
        "contract": replace(contract, action=contract.action[1:]),
        "normalization": replace(
            manifest.normalization,
            action=replace(
                manifest.normalization.action,
                **{n: getattr(manifest.normalization.action, n)[1:] for n in STATS},
            ),
        ),
    }
    refused(ContractMismatch, "needs action dimensions", **fewer)
    collect = replace(tuned, demos=None)
    refused(ContractMismatch, "needs action dimensions", collect, **fewer)
    assert not (tuned.run / "demos").exists()
    large = {
        "image": ImageSpec(size=64, slots=manifest.image.slots),
        "geometry": {**manifest.geometry, "image_size": 64},
    }
    refused(ConfigError, "images have 48 px, model 'reach' needs 64; .* --image-size 64", **large)


def test_more_actions_between_inferences_than_a_chunk_has_are_refused_at_once(config):
    with pytest.raises(ConfigError, match="replan_steps is 9, but a chunk has 8 actions"):
        sft.main(replace(config, replan_steps=9))
    assert not (config.run / "log.jsonl").exists()


def test_unknown_tasks_are_named(config):
    with pytest.raises(ConfigError, match=r"no task 'OpenDraw'.*Did you mean 'OpenDrawer'"):
        sft.main(replace(config, tasks="OpenDraw"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_policy_trained_from_images_reaches_what_it_sees(tmp_path):
    """Closed loop on unseen scenes: the target's place is in the pixels and nowhere else."""
    config = SFTConfig(
        bundle=tmp_path / "reach",
        run=tmp_path / "run",
        demos=make_demos(tmp_path / "demos", 800, image_size=48, frame_stride=1),
        tasks="OpenDrawer",
        geometry="small",
        train=TrainConfig(
            steps=3000,
            batch_size=64,
            learning_rate=2e-3,
            augmentation=Augmentation(shift_px=0, contrast=0.1, colour=0.1, brightness=0.05),
        ),
        replan_steps=4,
        device="cpu",
        export=False,
    )
    sft.main(config)
    policy, env, won = load_policy(config.bundle, backend="torch", threads=1), ReachEnv(), 0
    for seed in range(10_000, 10_040):
        env.reset(seed)
        policy.reset(seed)
        done = False
        while not done:
            step = env.step(policy.infer(env.observe()).actions[:4])
            done = step.done
        won += step.success
    assert won >= 28
