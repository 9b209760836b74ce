"""The whole of z1-sft on a tiny world: demonstrations in, a working bundle out."""

import json
from dataclasses import replace

import pytest
import torch
from reach_env import ReachEnv, ReachExpert

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.models.geometry import PRESETS
from z1_ros.models.manifest import load_bundle
from z1_ros.policy.backends import load_policy
from z1_ros.rl import demos, sft
from z1_ros.rl.dataset import Augmentation
from z1_ros.rl.sft import SFTConfig
from z1_ros.rl.start import STATE_FIELDS
from z1_ros.rl.train_config import TrainConfig
from z1_ros.specs import PANDA, check_contract

SMALL = replace(
    PRESETS["kitchen"],
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


def make_demos(directory, episodes):
    config = demos.DemosConfig(
        out=directory, tasks="OpenDrawer", episodes=episodes, image_size=48, frame_stride=1
    )
    demos._write_header(config)
    collector = demos.Collector(config, ReachEnv, ReachExpert)
    for seed in range(episodes):
        collector.run("OpenDrawer", seed)
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_demos(tmp_path_factory.mktemp("sft") / "demos", 10)


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
        json=tmp_path / "figures.json",
    )


def test_a_bundle_comes_out_that_fits_the_robot_and_says_how_it_was_made(config):
    figures = sft.main(config)
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
    assert figures["steps"] == 3 and figures["held_out_loss"] > 0
    assert json.loads(config.json.read_text("utf-8"))["frames"] == figures["frames"]
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
        "figures.json",
        "reach",
        "run",
    ]


def test_a_run_folder_of_other_settings_is_refused(config):
    sft.main(config)
    other = replace(config, train=replace(config.train, learning_rate=1.0))
    with pytest.raises(TrainingError, match="choose another run folder or pass --no-resume"):
        sft.main(other)
    assert sft.main(replace(other, resume=False))["steps"] == 3


def test_unknown_tasks_and_geometries_are_named(config):
    with pytest.raises(ConfigError, match=r"no task 'OpenDraw'.*Did you mean 'OpenDrawer'"):
        sft.main(replace(config, tasks="OpenDraw"))
    with pytest.raises(ConfigError, match=r"no geometry 'kitchn'.*Did you mean 'kitchen'"):
        sft.main(replace(config, geometry="kitchn"))


@pytest.mark.slow
def test_a_policy_trained_from_images_reaches_what_it_sees(tmp_path):
    """Closed loop on unseen scenes: the target's place is in the pixels and nowhere else."""
    config = SFTConfig(
        bundle=tmp_path / "reach",
        run=tmp_path / "run",
        demos=make_demos(tmp_path / "demos", 800),
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
