"""Flow-SDE: stochastic sampling of a flow policy, which gives actions a likelihood.

Euler steps of the flow are deterministic and have no likelihood. Steps of an SDE with the same
marginals are Gaussian. Time runs from 1 (noise) to 0 (action).
Source: Flow-GRPO (arXiv 2505.05470, Eq. 9) and πRL (arXiv 2510.25889, flow-SDE, one random
stochastic step per call); the forms of RLinf ``openpi_action_model.py`` and Flow-GRPO are equal.
``cps`` is Flow-CPS (arXiv 2509.05952): with few steps, an SDE adds noise that the flow cannot
remove completely. Flow-CPS replaces a part of the noise by new noise, so its amount is unchanged.
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
    """Settings for sampling actions in training."""

    noise_level: float = 0.5
    """Scale a of the noise. ``sde``: σ(t) = a √(t / (1 - t)). ``cps``: the share sin(πa / 2) of
    the noise is replaced; a = 1 replaces all of it. 0 gives the deterministic flow."""
    noise: Literal["sde", "cps"] = "sde"
    """Type of noise: ``sde`` adds noise in a step; ``cps`` (coefficients preserved) replaces a
    part of the noise, and its last step is deterministic."""
    steps: int = 5
    """Number of denoise steps K."""
    correlation: float = 0.0
    """Share ρ of the noise's variance that is common to all actions of a chunk. Independent noise
    (0, as in all sources) shakes the arm; common noise moves the arm to another place."""
    stochastic: Literal["one", "all"] = "one"
    """Stochastic steps: ``one`` random step of each chunk (the hybrid of πRL), or ``all`` steps,
    each with its own probability ratio (as in Flow-GRPO)."""

    def __post_init__(self) -> None:
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
        """Number of denoise steps that may be stochastic, counted from the first."""
        return self.steps - 1 if self.noise == "cps" else self.steps

    @property
    def noises(self) -> int:
        """Number of stochastic steps S in each sampled chunk."""
        return 1 if self.stochastic == "one" else self.noisy_steps


class Transitions(NamedTuple):
    """The stochastic steps of B sampled chunks, S steps for each chunk."""

    x: Tensor
    """Noisy actions before the step (B, S, H, action_dim)."""
    x_next: Tensor
    """Noisy actions after the step (B, S, H, action_dim)."""
    number: Tensor
    """Number of the denoise step, counted from 0 (B, S) int64."""


def transition(x: Tensor, v: Tensor, index: Tensor, sde: FlowSde) -> tuple[Tensor, Tensor]:
    """Return mean (B, H, D) and standard deviation (B, 1, 1) of one stochastic step, in float32.

    ``v`` is the velocity at the noisy actions x, both (B, H, D); ``index`` is the number of the
    step (B,) int64.
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
    """Return the standard deviations of stochastic steps, given their numbers, in float64."""
    # float64, because 1 - t must be exactly 0 at the first step, and only there.
    t = 1 - index.double() / sde.steps
    if sde.noise == "cps":
        return (t - 1 / sde.steps) * math.sin(math.pi * sde.noise_level / 2)
    # At t = 1 the noise scale is infinite; both sources use the time of the next step instead.
    from_action = torch.where(index == 0, 1 / sde.steps, 1 - t)
    return sde.noise_level * (t / from_action / sde.steps).sqrt()


def gaussian_log_prob(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the element-wise log-density, 0 where the standard deviation is 0."""
    safe = torch.where(std > 0, std, torch.ones_like(std))
    log_prob = -((value - mean) ** 2) / (2 * safe**2) - safe.log() - math.log(2 * math.pi) / 2
    return torch.where(std > 0, log_prob, torch.zeros_like(log_prob))


def correlated(noise: Tensor, sde: FlowSde) -> Tensor:
    """Correlate independent standard normal noise (..., H, D) by ρ between the actions of a chunk.

    The covariance (1 - ρ) I + ρ 11ᵀ has the mean over H and the deviations from it as eigenspaces.
    """
    mean, rho = noise.mean(-2, keepdim=True), sde.correlation
    if not rho:
        return noise
    common = math.sqrt(1 - rho + noise.shape[-2] * rho)
    return math.sqrt(1 - rho) * (noise - mean) + common * mean


def step_log_prob(value: Tensor, mean: Tensor, std: Tensor, sde: FlowSde) -> Tensor:
    """Return the log-density of each action, conditional on the earlier actions of the chunk.

    The sum over the first n actions is therefore the log-density of these n actions, for any n.
    The values after the step, its mean and the element-wise result are (B, H, D), its standard
    deviation is (B, 1, 1).
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

    ``action_mask`` is True for executed actions and dimensions that are not padding (B, H, D).
    """
    count = chain.number.shape[1]
    x, x_next, index = (part.flatten(0, 1) for part in chain)
    time = (1 - index / sde.steps).to(x.dtype)
    velocity = network.denoise(x, time, prefix.repeat(count))
    mean, std = transition(x, velocity, index, sde)
    each = step_log_prob(x_next.float(), mean, std, sde).unflatten(0, (-1, count))
    return masked_log_prob(each, action_mask)


def masked_log_prob(each: Tensor, action_mask: Tensor) -> Tensor:
    """Return the log-probability (B, S) of each step from element-wise ones (B, S, H, D)."""
    return (each * action_mask[:, None]).sum((2, 3))


@torch.no_grad()
def sample(
    network: Pi05, prefix: Prefix, start: Tensor, index: Tensor, noise: Tensor, sde: FlowSde
) -> tuple[Tensor, Transitions, Tensor]:
    """Sample chunks and record their stochastic steps and log-probabilities.

    ``start`` (B, H, D) and ``noise`` (B, S, H, D) of the stochastic steps are standard normal;
    ``index`` (B,) is the number of the stochastic step of each chunk, only used with ``one``.

    Returns:
        Actions (B, H, D), their stochastic steps, and the element-wise log-probabilities of these
        steps (B, S, H, D). Sum the latter when it is known which actions were executed.
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
    recorded = [torch.stack(part, 1) for part in (befores, afters, numbers, log_probs)]
    if sde.stochastic == "one":  # keep the step that was stochastic for this chunk
        hits = (recorded[2] >= 0).long().argmax(1, keepdim=True)
        chunks = torch.arange(len(hits), device=hits.device)[:, None]
        recorded = [part[chunks, hits] for part in recorded]
    before, after, number, each = recorded
    return x, Transitions(before, after, number), each
