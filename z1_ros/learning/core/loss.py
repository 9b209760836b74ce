"""Losses of training (flow matching, clipped surrogate of policy gradients) and their descent."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from z1_ros.errors import Diverged, TrainingError
from z1_ros.models.network.pi05 import Pi05, Prefix, draw_time, noisy_actions

MAX_MISMATCH = 0.01
"""Largest difference of log-probabilities between rollout and update; rounding causes ≤ 1e-4."""


def draw_flow(chunks: Tensor, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw noise (B * draws, H, action_dim) and flow times (B * draws,) for B chunks."""
    count = len(chunks) * draws
    shape = (count, *chunks.shape[1:])
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return noise, draw_time((count,), generator)


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
    """Return the mean squared error of the velocity, a float32 scalar.

    LeRobot uses only the real action dimensions. openpi uses all: the target of a padding dimension
    is then its noise, because its action is 0. Dimensions without a loss keep the velocity of the
    initial weights.

    Args:
        network: Network that predicts the velocity.
        prefix: B encoded observations.
        chunks: Normalised actions (B, H, action_dim).
        valid: True for label steps that count in the loss (B, H) bool.
        noise: Noise from ``draw_flow``; the draws of an observation are adjacent.
        time: Flow times from ``draw_flow``.
        dims: Number of leading action dimensions that count in the loss.
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

    ``ratio`` is the new probability divided by the old one, clipped to 1 - clip … 1 + clip.
    """
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def kl_estimate(log_ratio: Tensor) -> Tensor:
    """Return a non-negative estimate of the KL divergence for each log-ratio (Schulman's k3)."""
    return log_ratio.exp() - 1 - log_ratio


def require_same_policy(mismatch: float) -> None:
    """Raise TrainingError if recomputed log-probabilities differ from those of the rollouts."""
    if not mismatch <= MAX_MISMATCH:
        raise TrainingError(
            f"log-probabilities of the rollouts differ by {mismatch:.3g} when they are recomputed, "
            f"expected at most {MAX_MISMATCH}: rollouts and update are not of the same policy"
        )


def take_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], clip_norm: float
) -> float:
    """Take an optimiser step, return the gradient's norm; raises Diverged if it is not finite."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm).item()
    if not math.isfinite(norm):
        raise Diverged("its gradient is not finite")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
