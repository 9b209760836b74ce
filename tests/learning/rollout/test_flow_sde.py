"""The flow-SDE against published numbers, and as a sampler of the flow's own distribution."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from z1_ros.errors import ConfigError
from z1_ros.learning.rollout.flow_sde import (
    FlowSde,
    correlated,
    gaussian_log_prob,
    log_prob,
    masked_log_prob,
    sample,
    step_log_prob,
    transition,
)
from z1_ros.models.bundle.export import example_inputs
from z1_ros.models.network.geometry import SMALL
from z1_ros.models.network.pi05 import Pi05

TINY = replace(SMALL, image_size=32, vision_depth=1, depth=2, vocab=300, prompt_tokens=8, horizon=4)
# K = 5, a = 0.5, x = 0.3, v = -0.4: mean and std of each step, log-density at mean + 0.1.
VECTORS = (
    (0, 0.342500, 0.500000, -0.245791),
    (1, 0.352500, 0.447214, -0.139220),
    (2, 0.371250, 0.273861, 0.309528),
    (3, 0.377500, 0.182574, 0.631660),
    (4, 0.380625, 0.111803, 0.872075),
)
STDS = {4: (0.5, 0.433, 0.25, 0.144), 5: (0.5, 0.447, 0.274, 0.183, 0.112)}


def one(value):
    return torch.full((1, 1, 1), value)


@pytest.mark.parametrize(("step", "mean", "std", "log_density"), VECTORS)
def test_steps_have_the_published_mean_std_and_log_density(step, mean, std, log_density):
    found_mean, found_std = transition(one(0.3), one(-0.4), torch.tensor([step]), FlowSde())
    assert found_mean.item() == pytest.approx(mean, abs=1e-6)
    assert found_std.item() == pytest.approx(std, abs=1e-6)
    found = gaussian_log_prob(found_mean + 0.1, found_mean, found_std)
    assert found.item() == pytest.approx(log_density, abs=1e-6)


@pytest.mark.parametrize("steps", STDS)
def test_the_noise_of_each_step_is_the_published_one(steps):
    for step, std in enumerate(STDS[steps]):
        found = transition(one(0.0), one(0.0), torch.tensor([step]), FlowSde(steps=steps))[1]
        assert found.item() == pytest.approx(std, abs=5e-4)


def test_it_is_flow_grpos_form_too():
    """Mean x (1 - σ²δ/2t) - v (1 + σ²(1 - t)/2t) δ, with σ² = a² t / (1 - t)."""
    x, v = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    for step in range(1, 10):
        t, delta, a = 1 - step / 10, 0.1, 0.7
        s2 = a**2 * t / (1 - t)
        wanted = x * (1 - s2 * delta / (2 * t)) - v * (1 + s2 * (1 - t) / (2 * t)) * delta
        found = transition(x, v, torch.tensor([step]), FlowSde(steps=10, noise_level=a))[0]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def exact_velocity(x, t, mean, std):
    """Velocity of the flow from N(0, 1) to N(mean, std²)."""
    slope = (t - (1 - t) * std**2) / (t**2 + (1 - t) ** 2 * std**2)
    return -mean + slope * (x - (1 - t) * mean)


class ExactFlow:
    """A network whose distribution of actions is known: N(0.7, 0.3²) in every dimension."""

    def denoise(self, x, time, prefix):
        return exact_velocity(x, time[:, None, None], 0.7, 0.3)


@pytest.mark.parametrize("noise", ["sde", "cps"])
@pytest.mark.parametrize("stochastic", ["one", "all"])
def test_many_steps_keep_the_flows_distribution(stochastic, noise):
    level = 0.5 if noise == "sde" else 0.2
    sde = FlowSde(steps=100, noise_level=level, stochastic=stochastic, noise=noise)
    random = torch.Generator().manual_seed(0)
    count = 20_000
    start = torch.randn(count, 1, 1, generator=random)
    index = torch.randint(0, sde.noisy_steps, (count,), generator=random)
    noise = torch.randn(count, sde.noises, 1, 1, generator=random)
    actions, _, _ = sample(ExactFlow(), None, start, index, noise, sde)
    assert actions.mean().item() == pytest.approx(0.7, abs=0.01)
    assert actions.std().item() == pytest.approx(0.3, abs=0.012)


@pytest.mark.parametrize("level", [0.3, 1.0])
def test_cps_keeps_the_amount_of_noise_in_every_step(level):
    """The noise's share and the new draw's are the legs of a right triangle: Flow-CPS, Eq. 13."""
    sde = FlowSde(noise="cps", noise_level=level)
    for step in range(5):
        after = 1 - (step + 1) / 5
        mean, std = transition(one(0.0), one(-1.0), torch.tensor([step]), sde)
        action, noise = 1 - step / 5, -step / 5
        kept = (mean.item() - action * (1 - after)) / noise if noise else None
        assert std.item() == pytest.approx(after * np.sin(np.pi * level / 2), abs=1e-6)
        if kept is not None:
            assert kept**2 + std.item() ** 2 == pytest.approx(after**2, abs=1e-6)


def test_cps_has_no_noise_in_its_last_step():
    assert FlowSde(noise="cps").noisy_steps == 4
    assert FlowSde(noise="cps", stochastic="all").noises == 4


@pytest.mark.parametrize("executed", [1, 3, 6])
def test_correlated_noise_has_the_density_of_its_covariance(executed):
    sde = FlowSde(correlation=0.3)
    random = torch.Generator().manual_seed(0)
    mean, std = torch.randn(1, 6, 2, generator=random), torch.tensor([[[0.4]]])
    value = mean + std * torch.randn(1, 6, 2, generator=random)
    found = step_log_prob(value, mean, std, sde)[:, :executed].sum((1, 2))
    covariance = 0.4**2 * (0.7 * torch.eye(executed) + 0.3)
    wanted = torch.distributions.MultivariateNormal(torch.zeros(executed), covariance)
    gap = (value - mean)[0, :executed].T
    torch.testing.assert_close(found, wanted.log_prob(gap).sum()[None], rtol=1e-5, atol=1e-5)


def test_correlated_noise_is_drawn_with_its_covariance():
    noise = torch.randn(200_000, 4, 1, generator=torch.Generator().manual_seed(0))
    found = torch.cov(correlated(noise, FlowSde(correlation=0.3))[:, :, 0].T)
    torch.testing.assert_close(found, 0.7 * torch.eye(4) + 0.3, rtol=0, atol=0.01)
    assert torch.equal(correlated(noise, FlowSde()), noise)


def test_no_noise_is_the_flow_itself(network, prefix):
    start = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network.sample(prefix, start, 5)
    for level in (0.0, 1e-4):
        sde = FlowSde(noise_level=level)
        actions, _, _ = sample(
            network, prefix, start, torch.tensor([0, 3]), torch.randn(2, 1, 4, 12), sde
        )
        assert ((actions - wanted).abs().max() / wanted.abs().max()).item() < 1e-5 + 10 * level


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = Pi05(TINY)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else 0.1)
    return net


@pytest.fixture
def prefix(network):
    with torch.no_grad():
        return network.prefix(**example_inputs(TINY, 2, 0))


def sampled(network, prefix, sde, seed=0):
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(2, 4, 12, generator=random)
    noise = torch.randn(2, sde.noises, 4, 12, generator=random)
    index = torch.tensor([1, sde.noisy_steps - 1])
    return sample(network, prefix, start, index, noise, sde)


@pytest.mark.parametrize("correlation", [0.0, 0.3])
@pytest.mark.parametrize("noise", ["sde", "cps"])
@pytest.mark.parametrize("stochastic", ["one", "all"])
def test_recomputed_log_probabilities_are_the_stored_ones(
    network, prefix, stochastic, noise, correlation
):
    sde = FlowSde(stochastic=stochastic, noise=noise, correlation=correlation)
    _, chain, each = sampled(network, prefix, sde)
    assert chain.x.shape == each.shape == (2, sde.noises, 4, 12)
    action_mask = torch.zeros(2, 4, 12, dtype=torch.bool)
    action_mask[0, :3, :7] = action_mask[1, :1, :7] = True
    stored = masked_log_prob(each, action_mask)
    again = log_prob(network, prefix, chain, action_mask, sde)
    torch.testing.assert_close(again, stored, rtol=0, atol=1e-4)
    again.sum().backward()
    assert network.action_out_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("noise", "steps"), [("sde", range(5)), ("cps", range(4))])
def test_with_noise_in_all_steps_each_noisy_step_has_a_gradient_of_its_own(
    network, prefix, noise, steps
):
    """All but the last with cps: that one has no noise, so nothing is learnt there."""
    sde = FlowSde(stochastic="all", noise=noise)
    _, chain, _ = sampled(network, prefix, sde)
    assert chain.number.tolist() == [list(steps)] * 2
    action_mask = torch.ones(2, 4, 12, dtype=torch.bool)
    gradients = []
    for step in steps:
        network.zero_grad()
        log_prob(network, prefix, chain, action_mask, sde)[:, step].sum().backward()
        gradients.append(network.action_out_proj.weight.grad.clone())
        assert gradients[-1].abs().max() > 0
    assert not any(torch.equal(a, b) for a, b in pairwise(gradients))


def test_only_executed_actions_and_real_dimensions_count(network, prefix):
    sde = FlowSde()
    _, chain, each = sampled(network, prefix, sde)
    action_mask = torch.zeros(2, 4, 12, dtype=torch.bool)
    action_mask[:, :2, :7] = True
    elsewhere = torch.where(action_mask[:, None], chain.x_next, chain.x_next + 5)
    before = log_prob(network, prefix, chain, action_mask, sde)
    after = log_prob(network, prefix, chain._replace(x_next=elsewhere), action_mask, sde)
    assert torch.equal(before, after)
    wanted = each[:, 0, :2, :7].sum((1, 2))[:, None]
    torch.testing.assert_close(masked_log_prob(each, action_mask), wanted)


def test_each_chunk_has_its_own_stochastic_step(network, prefix):
    sde = FlowSde()
    random = torch.Generator().manual_seed(0)
    start, noise = torch.randn(2, 4, 12, generator=random), torch.zeros(2, 1, 4, 12)
    together, chain, _ = sample(network, prefix, start, torch.tensor([0, 4]), noise, sde)
    assert chain.number.tolist() == [[0], [4]]
    torch.testing.assert_close(chain.x[0, 0], start[0])
    torch.testing.assert_close(chain.x_next[1, 0], together[1])


@pytest.mark.parametrize(
    "bad",
    [
        {"noise_level": -0.1},
        {"noise": "cps", "noise_level": 1.1},
        {"noise": "cps", "steps": 1},
        {"correlation": 1.0},
        {"noise_level": float("nan")},
        {"steps": 0},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError):
        FlowSde(**bad)
