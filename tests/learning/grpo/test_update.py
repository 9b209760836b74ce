"""One update: which rows it trains on, which denoise steps learn, what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.grpo_runs import GRPO, grpo_config, grpo_training
from support.tiny_training import parameters_of

from z1_ros.errors import TrainingError
from z1_ros.learning.core.loss import flow_loss
from z1_ros.learning.grpo.config import GrpoConfig
from z1_ros.learning.grpo.update import make_batch, score, step_weights
from z1_ros.learning.rollout.collector import Executed, Group, GroupJob, Rollout
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group


def first_batch(tmp_path, bundle, sde=None, **grpo):
    """Return a run and what its first iteration would train on."""
    config = grpo_config(tmp_path, grpo=replace(GRPO, **grpo), **(sde or {}))
    made = grpo_training(config, bundle, tmp_path / "run")
    groups = made.collect(0)
    scored = [score(group, made.config.grpo) for group in groups]
    return made, make_batch(groups, scored, made.sampler.real_dims)


def learn(made, batch):
    return made.update.run(batch, torch.Generator().manual_seed(3))


# Which denoise steps learn


@pytest.mark.parametrize(
    ("noise", "stochastic", "learning"),
    [("cps", "all", {0, 1}), ("sde", "all", {0, 1, 2}), ("cps", "one", {0, 1})],
)
def test_each_noisy_denoise_step_learns_and_no_other(
    tmp_path, tiny_bundle, noise, stochastic, learning
):
    """A policy of three denoise steps: with cps the last has no noise, so nothing to learn."""
    made, batch = first_batch(tmp_path, tiny_bundle, {"noise": noise, "stochastic": stochastic})
    assert made.sde.steps == 3
    metrics = learn(made, batch)
    for name in ("kl", "clipped"):
        steps = {int(key[-1]) for key in metrics if key.startswith(f"{name}_step")}
        assert steps == learning
    assert metrics["kl_update"] > 0


def test_steps_are_weighed_by_the_variance_of_their_noise():
    sde = FlowSde(noise="cps", noise_level=1.0, stochastic="all")
    found = step_weights(sde, "variance")
    torch.testing.assert_close(found[:4], torch.tensor([0.64, 0.36, 0.16, 0.04]) / 0.3)
    assert torch.equal(step_weights(sde, "equal"), torch.ones(5))


# Which rows are trained on


def scored_group(success, lengths, **config):
    """Return the score of a group without sharing, whose chunks are of four executed actions."""
    segments = [
        Rollout([Executed(None, 4)] * length, bool(won), True)
        for won, length in zip(success, lengths, strict=True)
    ]
    group = Group(GroupJob((0,), plan_group(len(success), "none", 0), 1), segments)
    return score(group, GrpoConfig(**({"gamma": 0.5, "baseline": "group"} | config)))


def test_a_group_is_scored_by_its_successes():
    scored = scored_group([True, False], [1, 2])
    np.testing.assert_allclose(scored.advantage, [1, -1, -1], rtol=1e-5)


@pytest.mark.parametrize(
    ("success", "config", "kept"),
    [
        ([False, False], {}, False),
        ([True, True], {"filter_range": (0.0, 0.9), "gamma": 1.0}, False),
        ([True, True], {"calibration": "none"}, False),
        ([True, True], {}, True),
        ([True, False], {"filter_range": (0.6, 1.0), "gamma": 1.0}, False),
        ([True, False], {"filter_range": (0.5, 1.0), "gamma": 1.0}, True),
        ([True, False], {"filter_range": (0.0, 0.5), "gamma": 1.0}, True),
    ],
)
def test_groups_outside_the_filter_or_without_an_advantage_are_not_trained_on(
    success, config, kept
):
    scored = scored_group(success, [1, 2], **config)
    assert (scored is not None) == kept
    if not kept:
        assert make_batch([None], [scored], 7) is None


def test_the_baseline_is_the_group_or_those_that_still_run():
    of_group = scored_group([True, False], [1, 3])
    of_alive = scored_group([True, False], [1, 3], baseline="alive")
    np.testing.assert_allclose(of_group.advantage, [1, -1, -1, -1], rtol=1e-5)
    np.testing.assert_allclose(of_alive.advantage, [1, -1, 0, 0], atol=1e-5)


def test_a_batch_holds_each_chunk_once_and_masks_what_was_not_executed(tmp_path, tiny_bundle):
    made, batch = first_batch(tmp_path, tiny_bundle)
    assert len(batch.rows) == len(set(batch.rows.tolist())) <= len(batch.chunk)
    executed = batch.action_mask.any(-1).sum(-1)
    assert executed.max() == made.sampler.manifest.replan_steps
    assert not batch.action_mask[..., batch.real_dims :].any()
    assert batch.action_mask[..., : batch.real_dims].any(1).all()
    assert batch.old_log_prob.shape == (len(batch.rows), made.sde.noises)


@pytest.mark.parametrize("minibatches", [3, 64])
def test_rows_without_an_advantage_may_fill_a_minibatch(tmp_path, tiny_bundle, minibatches):
    made, batch = first_batch(tmp_path, tiny_bundle, minibatches=minibatches, learning_rate=1e-5)
    assert "kl" in learn(made, batch)


# Flow matching on what did better


def flow_error(made, batch, which):
    """Return how far the flow is from ending in what was sampled."""
    chunk = batch.chunk[which]
    shape = (len(chunk), *batch.end.shape[1:])
    generator = torch.Generator().manual_seed(7)
    noise, time = torch.randn(shape, generator=generator), torch.rand(shape[0], generator=generator)
    prefix = made.features.prefix_of(batch.rows[chunk])
    valid = torch.ones(shape[:2], dtype=torch.bool)
    with torch.no_grad():
        return flow_loss(
            made.network, prefix, batch.end[chunk], valid, noise, time, dims=batch.real_dims
        ).item()


def test_the_flow_is_drawn_towards_what_did_better_than_its_group(tmp_path, tiny_bundle):
    errors = []
    for weight in (0.0, 10.0):
        made, batch = first_batch(
            tmp_path, tiny_bundle, flow_weight=weight, update_epochs=20, learning_rate=1e-3
        )
        assert ("flow_loss" in learn(made, batch)) == (weight > 0)
        errors.append(flow_error(made, batch, batch.advantage > 0))
    assert errors[1] < errors[0]


def test_what_did_worse_than_its_group_is_not_imitated(tmp_path, tiny_bundle):
    made, batch = first_batch(tmp_path, tiny_bundle, flow_weight=1.0)
    batch.end[batch.chunk[batch.advantage <= 0]] = math.nan
    assert math.isfinite(learn(made, batch)["flow_loss"])


# How it is computed


def test_a_batch_may_be_split_for_memory_without_changing_the_update(tmp_path, tiny_bundle):
    results = []
    for size in (512, 5):
        made, batch = first_batch(tmp_path, tiny_bundle, micro_batch=size, flow_weight=1.0)
        learn(made, batch)
        results.append(parameters_of(made.network))
    for name, one in results[0].items():
        torch.testing.assert_close(one, results[1][name], atol=2e-4, rtol=1e-3)


def test_rollouts_of_another_policy_are_not_trained_on(tmp_path, tiny_bundle):
    made, batch = first_batch(tmp_path, tiny_bundle)
    with torch.no_grad():
        made.network.action_out_proj.weight.add_(0.3)
    before = parameters_of(made.network)
    with pytest.raises(TrainingError, match="not of the same policy"):
        learn(made, batch)
    for name, value in parameters_of(made.network).items():
        assert torch.equal(value, before[name])
