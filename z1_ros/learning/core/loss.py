"""The flow-matching loss."""

import torch
from torch import Tensor

from z1_ros.models.network.pi05 import Pi05, Prefix, noisy_actions


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
