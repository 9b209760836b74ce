"""Flow-SDE: a flow policy whose sampling has a likelihood.

Euler steps of the flow are deterministic, so they have none. Replacing steps by those of an SDE
with the same marginals makes each such step a Gaussian. Time runs from 1 (noise) to 0 (action).
Source: Flow-GRPO (arXiv 2505.05470, Eq. 9) and πRL (arXiv 2510.25889, flow-SDE, one random
stochastic step per call); the forms of RLinf ``openpi_action_model.py`` and Flow-GRPO are equal.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from z1_ros.errors import ConfigError, closest
from z1_ros.models.pi05 import Pi05, Prefix

STOCHASTIC = ("one", "all_sum", "all_mean")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSde:
    """How actions are sampled in training."""

    noise_level: float = 0.5
    """Scale a of the noise, σ(t) = a √(t / (1 - t)); 0 gives the flow itself."""
    steps: int = 5
    """Denoise steps K."""
    stochastic: str = "one"
    """Which steps are stochastic: ``one`` random step of each chunk (πRL's hybrid), or all of
    them, their log-probabilities added up (``all_sum``) or averaged together with the start's
    (``all_mean``, as RLinf's joint log-probability)."""
    ignore_last: bool = False
    """Never draw the last step, whose noise goes straight into the actions."""

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        if self.stochastic not in STOCHASTIC:
            raise ConfigError(
                f"stochastic is {self.stochastic!r}. {closest(self.stochastic, STOCHASTIC)}"
            )
        if not (self.noise_level >= 0 and math.isfinite(self.noise_level)):
            raise ConfigError(f"noise_level is {self.noise_level}, expected 0 or more")
        if self.steps < 1 or (self.ignore_last and self.steps < 2):
            raise ConfigError(f"steps is {self.steps}, expected at least 1, 2 with ignore_last")

    @property
    def drawn_steps(self) -> int:
        """Steps that may be stochastic: the first so many."""
        return self.steps - 1 if self.ignore_last else self.steps

    @property
    def noises(self) -> int:
        """Stochastic steps in each sampled chunk."""
        return 1 if self.stochastic == "one" else self.drawn_steps


class Transitions(NamedTuple):
    """The stochastic steps of B sampled chunks, S of each."""

    x: Tensor
    """Before the step (B, S, H, action_dim)."""
    x_next: Tensor
    """After it, same shape."""
    index: Tensor
    """Number of the step, 0 being the first (B, S) int64."""


def transition(x: Tensor, v: Tensor, index: Tensor, sde: FlowSde) -> tuple[Tensor, Tensor]:
    """Return mean (B, H, D) and standard deviation (B, 1, 1) of one stochastic step, in float32.

    Args:
        x: Noisy actions (B, H, D).
        v: Velocity at x, same shape.
        index: Number of the step (B,) int64.
        sde: Noise level and number of steps.
    """
    x, v = x.float(), v.float()
    delta = 1 / sde.steps
    # float64 until the end: 1 - t must vanish exactly at the first step, and nowhere else.
    t = 1 - index.double()[:, None, None] / sde.steps
    # At t = 1 the noise scale would be infinite; the next time stands in, as in both sources.
    from_action = torch.where(index[:, None, None] == 0, delta, 1 - t)
    variance = sde.noise_level**2 * t / from_action * delta
    action, noise = x - v * t.float(), x + v * (1 - t).float()
    after = t - delta
    mean = action * (1 - after).float() + noise * (after - variance / (2 * t)).float()
    return mean, variance.sqrt().float()


def gaussian_log_prob(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log-density of each number, 0 where the standard deviation is 0."""
    safe = torch.where(std > 0, std, torch.ones_like(std))
    log_prob = -((value - mean) ** 2) / (2 * safe**2) - safe.log() - math.log(2 * math.pi) / 2
    return torch.where(std > 0, log_prob, torch.zeros_like(log_prob))


def log_prob(
    network: Pi05, prefix: Prefix, chain: Transitions, counted: Tensor, start: Tensor, sde: FlowSde
) -> Tensor:
    """Return the log-probability (B,) of sampled chunks under the network, in float32.

    Args:
        network: The policy.
        prefix: Encoded observations of the B chunks.
        chain: Their stochastic steps.
        counted: (B, H, D) bool: executed actions, dimensions that are not padding.
        start: Noise they began from (B, H, D); only ``all_mean`` uses it.
        sde: As they were sampled.
    """
    count = chain.index.shape[1]
    x, x_next, index = (part.flatten(0, 1) for part in chain)
    time = (1 - index / sde.steps).to(x.dtype)
    velocity = network.denoise(x, time, prefix.repeat(count))
    mean, std = transition(x, velocity, index, sde)
    each = gaussian_log_prob(x_next.float(), mean, std).unflatten(0, (-1, count))
    return chunk_log_prob(each, counted, start, sde)


def chunk_log_prob(each: Tensor, counted: Tensor, start: Tensor, sde: FlowSde) -> Tensor:
    """Return the log-probability (B,) of chunks from ``sample``'s element-wise ones.

    Args:
        each: (B, S, H, D) log-probabilities of the stochastic steps.
        counted: As in ``log_prob``.
        start: As in ``log_prob``.
        sde: As they were sampled.
    """
    total = (each * counted[:, None]).sum((1, 2, 3))
    if sde.stochastic != "all_mean":
        return total
    prior = gaussian_log_prob(start, torch.zeros_like(start), torch.ones_like(start))
    return (total + (prior * counted).sum((1, 2))) / (each.shape[1] + 1)


@torch.no_grad()
def sample(
    network: Pi05, prefix: Prefix, start: Tensor, index: Tensor, noise: Tensor, sde: FlowSde
) -> tuple[Tensor, Transitions, Tensor]:
    """Sample chunks and keep what their likelihood needs.

    Args:
        network: The policy.
        prefix: Encoded observations.
        start: Standard normal noise (B, H, D).
        index: With ``one``: the stochastic step of each chunk (B,) int64; else not used.
        noise: Standard normal noise of the stochastic steps (B, S, H, D).
        sde: How to sample.

    Returns:
        Actions (B, H, D), their transitions, and the transitions' element-wise log-probabilities
        (B, S, H, D), to be summed when it is known which actions were executed.
    """
    x = start
    befores, afters, numbers, log_probs = [], [], [], []
    for step in range(sde.steps):
        number = torch.full_like(index, step)
        velocity = network.denoise(x, (1 - number / sde.steps).to(x.dtype), prefix)
        after = x - velocity / sde.steps
        hit = index == step if sde.stochastic == "one" else number < sde.drawn_steps
        if bool(hit.any()):
            mean, std = transition(x, velocity, number, sde)
            draw = noise[:, 0 if sde.stochastic == "one" else step]
            noisy = mean + std * draw
            after = torch.where(hit[:, None, None], noisy, after)
            befores.append(x)
            afters.append(after)
            numbers.append(torch.where(hit, number, -1))
            log_probs.append(gaussian_log_prob(after, mean, std))
        x = after
    pick = _hits(torch.stack(numbers, 1), sde)
    kept = (_take(torch.stack(part, 1), pick) for part in (befores, afters, numbers, log_probs))
    before, after, number, each = kept
    return x, Transitions(before, after, number), each


def _hits(numbers: Tensor, sde: FlowSde) -> Tensor:
    """Return which of the recorded steps (B, R) each chunk keeps: (B, S) int64."""
    if sde.stochastic == "one":
        return (numbers >= 0).long().argmax(1, keepdim=True)
    return torch.arange(numbers.shape[1], device=numbers.device).expand(len(numbers), -1)


def _take(recorded: Tensor, pick: Tensor) -> Tensor:
    """Return the picked steps (B, S, …) of recorded ones (B, R, …)."""
    return recorded[torch.arange(len(recorded), device=pick.device)[:, None], pick]
