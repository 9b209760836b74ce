"""The losses: flow matching, and the clipped surrogate of policy gradients."""

import torch
from torch import Tensor

from z1_ros.errors import TrainingError
from z1_ros.models.network.pi05 import Pi05, Prefix, noisy_actions

MAX_MISMATCH = 0.01
"""Beyond it, rollouts and updates do not compute the same policy; rounding gives 1e-4 or less."""


def flow_loss(
    network: Pi05,
    prefix: Prefix,
    chunks: Tensor,
    valid: Tensor,
    noise: Tensor,
    time: Tensor,
    *,
    dims: int,
) -> Tensor:
    """Return the mean square of the velocity error, a float32 scalar.

    LeRobot counts the real action dimensions, openpi all of them: there the target of a padding
    dimension is its noise, as its action is 0. A padding dimension that does not count keeps the
    velocity that the initial weights give it.

    Args:
        network: The network.
        prefix: B encoded observations.
        chunks: Normalised actions (B, H, action_dim).
        valid: (B, H) bool, label steps that count.
        noise: (B * draws, H, action_dim); draws of one observation stand in a row.
        time: (B * draws,).
        dims: Leading action dimensions that count.
    """
    draws = len(noise) // len(chunks)
    x_t, target = noisy_actions(chunks.repeat_interleave(draws, 0), noise, time)
    velocity = network.denoise(x_t, time, prefix.repeat(draws))
    with torch.autocast(velocity.device.type, enabled=False):
        error = (velocity.float() - target)[..., :dims].square().mean(-1)
        weight = valid.repeat_interleave(draws, 0).float()
        return (error * weight).sum() / weight.sum()


def clipped_loss(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Return PPO's clipped surrogate of each row, to be minimised (arXiv 1707.06347, Eq. 7).

    Args:
        ratio: New over old probability.
        advantage: Same shape.
        clip: The ratio counts from 1 - clip to 1 + clip.
    """
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def kl_estimate(log_ratio: Tensor) -> Tensor:
    """Return a non-negative estimate of the KL divergence for each log-ratio (Schulman's k3)."""
    return log_ratio.exp() - 1 - log_ratio


def require_same_policy(mismatch: float) -> None:
    """Raise TrainingError if recomputed log-probabilities are not those of the rollouts."""
    if not mismatch <= MAX_MISMATCH:
        raise TrainingError(
            f"log-probabilities of the rollouts differ by {mismatch:.3g} when they are recomputed, "
            f"expected at most {MAX_MISMATCH}: rollouts and update are not of the same policy"
        )
