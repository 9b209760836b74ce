"""Flow-SDE: a flow policy whose sampling has a likelihood.

Euler steps of the flow are deterministic, so they have none. Replacing steps by those of an SDE
with the same marginals makes each such step a Gaussian. Time runs from 1 (noise) to 0 (action).
Source: Flow-GRPO (arXiv 2505.05470, Eq. 9) and πRL (arXiv 2510.25889, flow-SDE, one random
stochastic step per call); the forms of RLinf ``openpi_action_model.py`` and Flow-GRPO are equal.
``cps`` is Flow-CPS (arXiv 2509.05952): with few steps an SDE adds noise that the flow cannot
remove any more; replacing a part of the noise by a new draw leaves its amount as it was.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from z1_ros.errors import ConfigError
from z1_ros.models.network.pi05 import Pi05, Prefix


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSde:
    """How actions are sampled in training."""

    noise_level: float = 0.5
    """Scale a of the noise, ``sde``: σ(t) = a √(t / (1 - t)); ``cps``: sin(πa / 2) of it is drawn
    anew, 1 being all. 0 gives the flow itself."""
    noise: Literal["sde", "cps"] = "sde"
    """``sde`` adds noise to a step, ``cps`` (coefficients preserved) renews it; the last step of
    ``cps`` has none."""
    steps: int = 5
    """Denoise steps K."""
    correlation: float = 0.0
    """Share ρ of the noise's variance that the actions of a chunk have in common. Independent
    noise (0, as in all sources) shakes the arm; noise in common moves it somewhere else."""
    stochastic: Literal["one", "all"] = "one"
    """Which steps are stochastic: ``one`` random step of each chunk (πRL's hybrid), or ``all`` of
    them, each with a probability ratio of its own (as Flow-GRPO)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        most = 1.0 if self.noise == "cps" else math.inf
        if not (0 <= self.noise_level <= most and math.isfinite(self.noise_level)):
            raise ConfigError(
                f"noise_level is {self.noise_level}, expected 0 or more"
                + (", at most 1 with cps" if self.noise == "cps" else "")
            )
        if not 0 <= self.correlation < 1:
            raise ConfigError(f"correlation is {self.correlation}, expected 0 or more, below 1")
        if self.noisy_steps < 1:
            raise ConfigError(
                f"steps is {self.steps}, expected at least 1, and 2 with cps, whose last step has "
                "no noise"
            )

    @property
    def noisy_steps(self) -> int:
        """Steps that may be stochastic: the first so many."""
        return self.steps - 1 if self.noise == "cps" else self.steps

    @property
    def noises(self) -> int:
        """Stochastic steps S in each sampled chunk."""
        return 1 if self.stochastic == "one" else self.noisy_steps


class Transitions(NamedTuple):
    """The stochastic steps of B sampled chunks, S of each."""

    x: Tensor
    """Before the step (B, S, H, action_dim)."""
    x_next: Tensor
    """After it, same shape."""
    number: Tensor
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
    index = index[:, None, None]
    t = 1 - index.double() / sde.steps
    after = t - 1 / sde.steps
    action, noise = x - v * t.float(), x + v * (1 - t).float()
    std = step_std(index, sde)
    if sde.noise == "cps":
        kept = after * math.cos(math.pi * sde.noise_level / 2)
    else:
        kept = after - std**2 / (2 * t)
    return action * (1 - after).float() + noise * kept.float(), std.float()


def step_std(index: Tensor, sde: FlowSde) -> Tensor:
    """Return the standard deviation of stochastic steps, by their numbers; float64."""
    # float64: 1 - t must vanish exactly at the first step, and nowhere else.
    t = 1 - index.double() / sde.steps
    if sde.noise == "cps":
        return (t - 1 / sde.steps) * math.sin(math.pi * sde.noise_level / 2)
    # At t = 1 the noise scale would be infinite; the next time stands in, as in both sources.
    from_action = torch.where(index == 0, 1 / sde.steps, 1 - t)
    return sde.noise_level * (t / from_action / sde.steps).sqrt()


def gaussian_log_prob(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log-density of each number, 0 where the standard deviation is 0."""
    safe = torch.where(std > 0, std, torch.ones_like(std))
    log_prob = -((value - mean) ** 2) / (2 * safe**2) - safe.log() - math.log(2 * math.pi) / 2
    return torch.where(std > 0, log_prob, torch.zeros_like(log_prob))


def correlated(noise: Tensor, sde: FlowSde) -> Tensor:
    """Return standard normal noise (..., H, D) whose steps correlate by ρ, from independent one.

    Covariance (1 - ρ) I + ρ 11ᵀ: its eigenvectors are the mean over H and what departs from it.
    """
    mean, rho = noise.mean(-2, keepdim=True), sde.correlation
    if not rho:
        return noise
    common = math.sqrt(1 - rho + noise.shape[-2] * rho)
    return math.sqrt(1 - rho) * (noise - mean) + common * mean


def step_log_prob(value: Tensor, mean: Tensor, std: Tensor, sde: FlowSde) -> Tensor:
    """Return log-densities (B, H, D), each given the ones before it in the chunk.

    So their sum over the first n actions is the density of these, however many are executed.

    Args:
        value: What was sampled (B, H, D).
        mean: Of the step, from ``transition``.
        std: Of the step (B, 1, 1).
        sde: How it was sampled.
    """
    rho = sde.correlation
    if not rho:
        return gaussian_log_prob(value, mean, std)
    before = torch.arange(value.shape[-2])[:, None].to(value)
    gap = value - mean
    earlier = gap.cumsum(-2) - gap
    share = rho / (1 - rho + before * rho)
    narrowed = (1 - before * rho * share).sqrt()
    return gaussian_log_prob(value, mean + earlier * share, std * narrowed)


def log_prob(
    network: Pi05, prefix: Prefix, chain: Transitions, action_mask: Tensor, sde: FlowSde
) -> Tensor:
    """Return the log-probability (B, S) of each stochastic step under the network, in float32.

    Args:
        network: The policy.
        prefix: Encoded observations of the B chunks.
        chain: Their stochastic steps.
        action_mask: (B, H, D) bool: executed actions, dimensions that are not padding.
        sde: As they were sampled.
    """
    count = chain.number.shape[1]
    x, x_next, index = (part.flatten(0, 1) for part in chain)
    time = (1 - index / sde.steps).to(x.dtype)
    velocity = network.denoise(x, time, prefix.repeat(count))
    mean, std = transition(x, velocity, index, sde)
    each = step_log_prob(x_next.float(), mean, std, sde).unflatten(0, (-1, count))
    return masked_log_prob(each, action_mask)


def masked_log_prob(each: Tensor, action_mask: Tensor) -> Tensor:
    """Return the log-probability (B, S) of each stochastic step from element-wise ones.

    Args:
        each: (B, S, H, D), as ``sample`` returns them.
        action_mask: As in ``log_prob``.
    """
    return (each * action_mask[:, None]).sum((2, 3))


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
        hit = index == step if sde.stochastic == "one" else number < sde.noisy_steps
        if bool(hit.any()):
            mean, std = transition(x, velocity, number, sde)
            draw = noise[:, 0 if sde.stochastic == "one" else step]
            noisy = mean + std * correlated(draw, sde)
            after = torch.where(hit[:, None, None], noisy, after)
            befores.append(x)
            afters.append(after)
            numbers.append(torch.where(hit, number, -1))
            log_probs.append(step_log_prob(after, mean, std, sde))
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
