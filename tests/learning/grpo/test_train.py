"""Z-1's loop on a small world: what is trained, exact resume, divergence, the bundle at the end."""

import json
import math
from dataclasses import replace

import pytest
import torch
from support.grpo_runs import GRPO, run_through, settings, training, weights
from support.inline_worker import InlineWorker
from support.tiny_bundle import write_tiny_bundle

from z1_ros.benchmarks.load import random_observation
from z1_ros.errors import ConfigError, Diverged, TrainingError
from z1_ros.learning.core.learner import made_by, report
from z1_ros.learning.core.lora import plain_weights
from z1_ros.learning.core.loss import flow_loss
from z1_ros.learning.core.run_log import CHECKPOINT, LOG, read_records, run_folder
from z1_ros.learning.grpo.config import GrpoConfig
from z1_ros.learning.grpo.train import main, set_learning_rates
from z1_ros.learning.grpo.update import clipped_loss, make_batch, score, step_weights
from z1_ros.learning.rollout.env_pool import EnvPool
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle
from z1_ros.models.bundle.writer import write_result
from z1_ros.policy.backends import load_policy


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "tiny")


def test_only_the_expert_changes_and_the_first_ratios_are_one(tmp_path, bundle):
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    before = weights(made.network)
    records = run_through(made)
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
    records = run_through(made)
    assert all(r["log_prob_mismatch"] < 1e-4 for r in records if "kl" in r)
    after = plain_weights(made.network)
    changed = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert any(n.startswith("vlm.") for n in changed)
    assert any(n.startswith("vision.") for n in changed)


@pytest.mark.parametrize("ema", [0.0, 0.6])
def test_a_resumed_run_has_the_numbers_of_one_that_was_not_interrupted(tmp_path, bundle, ema):
    whole = training(settings(tmp_path, ema=ema), bundle, tmp_path / "whole")
    records = run_through(whole)
    first = training(settings(tmp_path, ema=ema, iterations=2), bundle, tmp_path / "parts")
    run_through(first)
    second = training(settings(tmp_path, ema=ema), bundle, tmp_path / "parts")
    assert second.state.resume()
    (last,) = run_through(second)
    timeless = [k for k in last if not k.endswith("_s")]
    assert {k: last[k] for k in timeless} == {k: records[-1][k] for k in timeless}
    for name, value in weights(whole.network).items():
        assert torch.equal(value, dict(second.network.named_parameters())[name]), name
    assert bool(whole.state.average.tensors) == bool(ema)
    for name, value in whole.state.average.tensors.items():
        assert torch.equal(value, second.state.average.tensors[name]), name


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, bundle):
    made = training(settings(tmp_path, iterations=1), bundle, tmp_path / "run")
    run_through(made)
    other = settings(tmp_path, grpo=replace(GRPO, clip=0.1))
    with pytest.raises(TrainingError, match="made with grpo"):
        training(other, bundle, tmp_path / "run").state.resume()


def test_divergence_ends_the_run_and_keeps_the_best_weights(tmp_path, bundle):
    config = settings(tmp_path, grpo=replace(GRPO, learning_rate=0.5, update_epochs=4, max_kl=1.0))
    made = training(config, bundle, tmp_path / "run")
    before = weights(made.network)
    with pytest.raises(Diverged, match="diverged at iteration"):
        run_through(made)
    made.state.load_best()
    for name, parameter in made.network.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_single_step_that_goes_too_far_is_divergence_too(tmp_path, bundle):
    """With one optimiser step an iteration, every ratio is taken before it."""
    config = settings(tmp_path, grpo=replace(GRPO, learning_rate=0.5, minibatches=1))
    made = training(config, bundle, tmp_path / "run")
    with pytest.raises(Diverged, match="moved it by KL"):
        run_through(made)
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_after_divergence_the_best_weights_are_a_bundle(tmp_path, bundle):
    config = settings(
        tmp_path,
        bundle=str(bundle.path),
        grpo=replace(GRPO, learning_rate=0.5, minibatches=1),
        max_chunks=6,
    )
    for _ in range(2):  # the same command again ends alike
        with pytest.raises(Diverged, match=r"best weights, success .* are written to .*/out;"):
            main(config, lambda *_: EnvPool([InlineWorker() for _ in range(4)]))
    made = load_bundle(tmp_path / "out")
    assert made.manifest.files[WEIGHTS] == bundle.manifest.files[WEIGHTS]
    assert {"prefix.onnx", "denoise.onnx"} <= set(made.manifest.files)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_bundle_is_of_the_best_weights_or_the_last(tmp_path, bundle, monkeypatch, keep):
    successes = [1.0, 0.0]

    def evaluate(learner):
        learner.state.note_success(successes[0])
        return {"eval_success": successes.pop(0)}

    monkeypatch.setattr("z1_ros.learning.core.learner.evaluate", evaluate)
    config = settings(tmp_path, bundle=str(bundle.path), iterations=1, keep=keep, export=False)
    main(config, lambda *_: EnvPool([InlineWorker() for _ in range(4)]))
    made = load_bundle(tmp_path / "out")
    assert (made.manifest.files[WEIGHTS] == bundle.manifest.files[WEIGHTS]) == (keep == "best")
    assert made.manifest.made_by["z1"]["best_iteration"] == (0 if keep == "best" else 1)


def test_what_a_run_measured_last_is_known_when_it_goes_on(tmp_path, bundle):
    made = training(settings(tmp_path, iterations=1), bundle, tmp_path / "run")
    run_through(made)
    made.state.note_success(2.0)
    again = training(settings(tmp_path), bundle, tmp_path / "run")
    again.state.resume()
    assert again.state.best_success == 2.0
    fresh = training(settings(tmp_path), bundle, tmp_path / "run")
    fresh.state.begin()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("minibatches", [3, 64])
def test_rows_without_an_advantage_may_fill_a_minibatch(tmp_path, bundle, minibatches):
    grpo = replace(GRPO, minibatches=minibatches, learning_rate=1e-5)
    made = training(settings(tmp_path, grpo=grpo), bundle, tmp_path / "run")
    assert any("kl" in record for record in run_through(made))


def first_batch(tmp_path, bundle, **grpo):
    """Return a run and what its first iteration would train on."""
    made = training(settings(tmp_path, grpo=replace(GRPO, **grpo)), bundle, tmp_path / "run")
    scored = [score(group, made.config.grpo) for group in made.roll_out(0)]
    return made, make_batch(scored, made.sde, made.actor.real_dims)


def learn(made, batch):
    return made.update.run(batch, torch.Generator().manual_seed(3))


def flow_error(made, batch, which):
    """Return how far the flow is from ending in what was sampled."""
    chunk = batch.chunk[which]
    shape = (len(chunk), *batch.end.shape[1:])
    generator = torch.Generator().manual_seed(7)
    noise, time = torch.randn(shape, generator=generator), torch.rand(shape[0], generator=generator)
    prefix = made.memory.prefix_of(batch.rows[chunk])
    valid = torch.ones(shape[:2], dtype=torch.bool)
    with torch.no_grad():
        return flow_loss(
            made.network, prefix, batch.end[chunk], valid, noise, time, dims=batch.real_dims
        ).item()


def test_the_flow_is_drawn_towards_what_did_better_than_its_group(tmp_path, bundle):
    errors = []
    for weight in (0.0, 10.0):
        made, batch = first_batch(
            tmp_path, bundle, flow_weight=weight, update_epochs=20, learning_rate=1e-3
        )
        assert ("flow_loss" in learn(made, batch)) == (weight > 0)
        errors.append(flow_error(made, batch, batch.advantage > 0))
    assert errors[1] < errors[0]


def test_what_did_worse_than_its_group_is_not_imitated(tmp_path, bundle):
    made, batch = first_batch(tmp_path, bundle, flow_weight=1.0)
    batch.end[batch.chunk[batch.advantage <= 0]] = math.nan
    assert math.isfinite(learn(made, batch)["flow_loss"])


def test_a_batch_may_be_split_for_memory_without_changing_the_update(tmp_path, bundle):
    results = []
    for size in (512, 5):
        made, batch = first_batch(tmp_path, bundle, micro_batch=size, flow_weight=1.0)
        learn(made, batch)
        results.append(made.network.parameters())
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_rollouts_of_another_policy_are_not_trained_on(tmp_path, bundle):
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    roll_out = made.roll_out

    def then_change(iteration):
        groups = roll_out(iteration)
        with torch.no_grad():
            made.network.action_out_proj.weight.add_(0.3)
        return groups

    made.roll_out = then_change
    with pytest.raises(TrainingError, match="not of the same policy"):
        made.iterate()


def test_the_first_budget_that_is_used_up_ends_training(tmp_path, bundle):
    state = training(settings(tmp_path), bundle, tmp_path / "run").state
    state.iteration, state.elapsed_s, state.env_steps = 5, 120.0, 900
    assert not state.finished(3, 0, 0) and not state.finished(0, 6, 1000)
    assert state.finished(2, 6, 0) and state.finished(3, 5, 0) and state.finished(0, 0, 900)


def test_a_prefix_keeps_its_length_unless_told_otherwise():
    assert GrpoConfig(prefix=15).last_prefix == 15
    assert GrpoConfig(prefix=15, prefix_end=0, prefix_iterations=9).last_prefix == 0


def test_a_run_lies_beside_its_bundle_and_nothing_else_is_replaced(tmp_path, bundle):
    out = tmp_path / "mine"
    assert run_folder(None, out) == tmp_path / "mine-run"
    assert run_folder(tmp_path / "elsewhere", out).is_dir()
    for run, folder, message in (
        (out, out, "would be replaced"),
        (out / "run", out, "would be replaced"),
        (bundle.path / "manifest.json", out, "cannot be the run's folder"),
        (None, tmp_path, "exists and is no bundle"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_folder(run, folder)
    assert not out.exists()


def test_a_line_that_was_torn_off_costs_no_other(tmp_path):
    (tmp_path / LOG).write_text('{"iteration": 0, "loss": 1.0}\n{"iterat')
    report({"iteration": 1, "loss": 2.0, "chunks_to_success": math.nan}, tmp_path, None)
    report({"iteration": 2, "loss": 3.0}, tmp_path, None)
    assert [r["loss"] for r in read_records(tmp_path)] == [1.0, 2.0, 3.0]
    assert "NaN" not in (tmp_path / LOG).read_text()


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
    run_through(made)
    figures = made.state.facts
    origin = made_by("z1-train", figures | made.identity, bundle)
    out = write_result(bundle, made.network.state_dict(), tmp_path / "out", origin)
    assert load_bundle(out.path).manifest.made_by["z1"]["iteration"] == 1
    assert "reinforcement learning" in out.file("README.md").read_text("utf-8")
    assert out.manifest.files[WEIGHTS] != bundle.manifest.files[WEIGHTS]
    load_policy(out.path).infer(random_observation(out.manifest))
    json.dumps(origin)


def test_steps_are_weighed_by_the_variance_of_their_noise():
    sde = FlowSde(noise="cps", noise_level=1.0, stochastic="all")
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
        {"workers": 0},
        {"minutes": float("nan")},
        {"eval_episodes": 1001},
        {"minutes": 0.0, "iterations": 0},
        {"seed": -1},
        {"max_chunks": -5},
        {"noise_level": 0.0},
        {"keep": "worst"},
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
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"clip": 0.0},
        {"clip_norm": 0.0},
        {"weight_decay": -1.0},
        {"max_resample": -1},
        {"prefix": -1},
        {"flow_weight": -1.0},
        {"flow_weight": float("inf")},
    ],
)
def test_impossible_updates_are_refused(bad):
    with pytest.raises(ConfigError):
        GrpoConfig(**bad)
