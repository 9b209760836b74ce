"""Z-1's loop on a small world: what is trained, exact resume, divergence, the bundle at the end."""

import json
from dataclasses import replace

import pytest
import torch
from test_collect import InlineLane
from tiny_bundle import write_tiny_bundle

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.models.manifest import WEIGHTS, load_bundle
from z1_ros.policy.backends import load_policy
from z1_ros.policy.load_bench import random_observation
from z1_ros.rl.flow_sde import FlowSde
from z1_ros.rl.grpo import clipped_loss, step_weights
from z1_ros.rl.grpo_config import GrpoConfig, Z1Config
from z1_ros.rl.lanes import LanePool
from z1_ros.rl.lora import plain_weights
from z1_ros.rl.result import write_result
from z1_ros.rl.train import Training, made_by, set_learning_rates, train

GRPO = GrpoConfig(group_size=4, groups=6, prefix=1, prefix_end=1, learning_rate=1e-3)


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "tiny")


def settings(tmp_path, **changes):
    given = {
        "bundle": "tiny",
        "task": "OpenDrawer",
        "out": tmp_path / "out",
        "minutes": 0.0,
        "iterations": 3,
        "eval_every": 2,
        "eval_episodes": 4,
        "grpo": GRPO,
    }
    return Z1Config(**(given | changes))


def training(config, bundle, run):
    run.mkdir(exist_ok=True)
    return Training(config, bundle, LanePool([InlineLane() for _ in range(4)]), run)


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_only_the_expert_changes_and_the_first_ratios_are_one(tmp_path, bundle):
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    before = weights(made.network)
    records = list(train(made))
    assert [r["iteration"] for r in records] == [0, 1, 2]
    assert ["eval_success" in r for r in records] == [True, False, True]
    learnt = [r for r in records if "kl" in r]
    assert learnt and all(r["log_prob_mismatch"] < 1e-4 for r in learnt)
    changed = {n for n, p in made.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(n.startswith(("expert.", "time.", "action_")) for n in changed)


@pytest.mark.parametrize("trained", ["joint", "lora"])
def test_joint_training_changes_the_vlm_too(tmp_path, bundle, trained):
    config = settings(tmp_path, grpo=replace(GRPO, trained=trained))
    made = training(config, bundle, tmp_path / "run")
    before = {name: p.clone() for name, p in plain_weights(made.network).items()}
    records = list(train(made))
    assert all(r["log_prob_mismatch"] < 1e-4 for r in records if "kl" in r)
    after = plain_weights(made.network)
    changed = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert any(n.startswith("vlm.") for n in changed)
    assert any(n.startswith("vision.") for n in changed)


def test_a_resumed_run_has_the_numbers_of_one_that_was_not_interrupted(tmp_path, bundle):
    whole = training(settings(tmp_path), bundle, tmp_path / "whole")
    records = list(train(whole))
    first = training(settings(tmp_path, iterations=2), bundle, tmp_path / "parts")
    list(train(first))
    second = training(settings(tmp_path), bundle, tmp_path / "parts")
    assert second.state.resume()
    (last,) = train(second)
    timeless = [k for k in last if not k.endswith("_s")]
    assert {k: last[k] for k in timeless} == {k: records[-1][k] for k in timeless}
    for name, value in weights(whole.network).items():
        assert torch.equal(value, dict(second.network.named_parameters())[name]), name


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, bundle):
    made = training(settings(tmp_path, iterations=1), bundle, tmp_path / "run")
    list(train(made))
    other = settings(tmp_path, grpo=replace(GRPO, clip=0.1))
    with pytest.raises(TrainingError, match="made with grpo"):
        training(other, bundle, tmp_path / "run").state.resume()


def test_divergence_ends_the_run_and_keeps_the_best_weights(tmp_path, bundle):
    config = settings(tmp_path, grpo=replace(GRPO, learning_rate=0.5, update_epochs=4, max_kl=1.0))
    made = training(config, bundle, tmp_path / "run")
    before = weights(made.network)
    with pytest.raises(TrainingError, match="diverged at iteration"):
        list(train(made))
    made.state.load_best()
    for name, parameter in made.network.named_parameters():
        assert torch.equal(parameter, before[name])


def test_useless_groups_are_replaced_if_asked_for(tmp_path, bundle):
    strict = replace(GRPO, filter_by="resample", max_resample=2, filter_low=0.9, filter_high=0.95)
    made = training(settings(tmp_path, grpo=strict), bundle, tmp_path / "run")
    groups = made.roll_out(0)
    assert len(groups) == 3 * GRPO.groups
    seeds = [group.job.seed for group in groups]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 9_000


def test_the_result_is_a_bundle_that_runs(tmp_path, bundle):
    config = settings(tmp_path, iterations=1)
    made = training(config, bundle, tmp_path / "run")
    list(train(made))
    figures = made.state.facts | {"task": "OpenDrawer"}
    origin = made_by(config, figures, bundle)
    out = write_result(bundle, made.network.state_dict(), tmp_path / "out", origin)
    assert load_bundle(out.path).manifest.made_by["z1"]["iteration"] == 1
    assert "reinforcement learning" in out.file("README.md").read_text("utf-8")
    assert out.manifest.files[WEIGHTS] != bundle.manifest.files[WEIGHTS]
    load_policy(out.path).infer(random_observation(out.manifest))
    json.dumps(origin)


def test_steps_are_weighed_by_the_variance_of_their_noise():
    sde = FlowSde(noise="cps", noise_level=1.0, stochastic="all_each")
    found = step_weights(sde, "variance")
    torch.testing.assert_close(found[:4], torch.tensor([0.64, 0.36, 0.16, 0.04]) / 0.3)
    assert torch.equal(step_weights(sde, "equal"), torch.ones(5))
    assert torch.equal(step_weights(FlowSde(stochastic="all_sum"), "variance"), torch.ones(5))


def test_learning_rates_rise_to_what_is_asked_for(tmp_path, bundle):
    config = GrpoConfig(trained="joint", learning_rate=1e-3, vlm_learning_rate=1e-4)
    made = training(settings(tmp_path, grpo=config), bundle, tmp_path / "run")
    rates = []
    for iteration in (0, 4, 9):
        set_learning_rates(made.optimizer, config, iteration)
        rates.append([group["lr"] for group in made.optimizer.param_groups])
    assert rates == [[pytest.approx(2e-4), pytest.approx(2e-5)], [1e-3, 1e-4], [1e-3, 1e-4]]


def test_the_surrogate_is_clipped_on_the_side_that_would_gain():
    ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.5])
    advantage = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    found = clipped_loss(ratio, advantage, 0.2, 0.28)
    torch.testing.assert_close(found, -torch.tensor([0.5, 1.0, 1.28, -0.8, -1.5]))


@pytest.mark.parametrize(
    "bad",
    [
        {"through": "air"},
        {"lanes": 0},
        {"minutes": float("nan")},
        {"eval_episodes": 1001},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, bad):
    with pytest.raises(ConfigError):
        settings(tmp_path, **bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"group_size": 1},
        {"sharing": "tree", "group_size": 6},
        {"gamma": 0.0},
        {"filter_low": 0.9, "filter_high": 0.1},
        {"trained": "vlm"},
    ],
)
def test_impossible_updates_are_refused(bad):
    with pytest.raises(ConfigError):
        GrpoConfig(**bad)
