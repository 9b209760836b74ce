"""The losses, against their formulas."""

import math

import pytest
import torch
from support.tiny_bundle import TINY
from support.tiny_training import made_frames

from z1_ros.errors import TrainingError
from z1_ros.learning.core.loss import clipped_loss, flow_loss, kl_estimate, require_same_policy
from z1_ros.models.network.pi05 import Pi05


def test_flow_loss_is_the_mean_square_of_the_velocity_error_over_what_counts():
    frames = made_frames(4)
    network = Pi05(TINY).init_weights(0)  # velocity is exactly zero
    prefix = network.prefix(**frames.inputs(torch.arange(2), None, torch.Generator()))
    noise = torch.randn(6, TINY.horizon, TINY.action_dim)
    valid = torch.zeros(2, TINY.horizon, dtype=torch.bool)
    valid[0, :3] = valid[1, :1] = True
    found = flow_loss(network, prefix, frames.chunks[:2], valid, noise, torch.rand(6), dims=7)
    target = (noise - frames.chunks[:2].repeat_interleave(3, 0))[..., :7]
    kept = torch.cat([target[:3, :3].reshape(-1, 7), target[3:, :1].reshape(-1, 7)])
    torch.testing.assert_close(found, kept.square().mean())


def test_the_surrogate_is_clipped_on_the_side_that_would_gain():
    ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.5])
    advantage = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    found = clipped_loss(ratio, advantage, 0.2)
    torch.testing.assert_close(found, -torch.tensor([0.5, 1.0, 1.2, -0.8, -1.5]))


def test_the_kl_estimate_is_never_negative_and_right_on_average():
    sampled = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    log_ratio = 0.3 * sampled - 0.3**2 / 2  # of N(0.3, 1) over N(0, 1), at samples of the latter
    found = kl_estimate(log_ratio)
    assert found.min() > -1e-6
    assert found.mean().item() == pytest.approx(0.3**2 / 2, rel=0.02)


def test_log_probabilities_of_another_policy_are_refused():
    require_same_policy(1e-3)
    for mismatch in (0.02, math.nan):
        with pytest.raises(TrainingError, match="not of the same policy"):
            require_same_policy(mismatch)
