"""What is rounded and what is not when a network runs in bfloat16, and what recomputation keeps."""

from dataclasses import replace

import pytest
import torch

from z1_ros.models.bundle.export import example_draws, example_inputs
from z1_ros.models.network.geometry import SMALL
from z1_ros.models.network.pi05 import Pi05, noisy_actions

SMALL = replace(
    SMALL, image_size=32, vision_depth=2, depth=3, vocab=300, prompt_tokens=12, horizon=4
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = Pi05(SMALL)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else 0.1)
    return net


def loss_of(network, prefix=None):
    draws = example_draws(SMALL, 2, 1)
    prefix = prefix or network.prefix(**example_inputs(SMALL, 2, 0))
    noise = torch.ones_like(draws["x_t"])
    x_t, target = noisy_actions(draws["x_t"], noise, draws["time"])
    return (network.denoise(x_t, draws["time"], prefix) - target).square().mean()


def test_a_cast_keeps_vision_norms_time_and_action_projections_in_float32(network):
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    rates = network.time.rates.clone()
    network.cast(torch.bfloat16)
    exact = ("vision.", "projector.", "layernorm", "expert.norm", "time.", "action_")
    for name, parameter in network.named_parameters():
        kept = any(part in name for part in exact)
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name
        if kept:
            assert torch.equal(parameter, before[name])
    assert torch.equal(network.time.rates, rates)


def test_a_cast_network_gives_float32_close_to_the_exact_one(network):
    inputs, noise = example_inputs(SMALL, 2, 0), example_draws(SMALL, 2, 0)["x_t"]
    with torch.no_grad():
        exact = network.sample(network.prefix(**inputs), noise, 5)
        network.cast(torch.bfloat16)
        prefix = network.prefix(**inputs)
        rounded = network.sample(prefix, noise, 5)
    assert prefix.k.dtype == prefix.v.dtype == torch.bfloat16
    assert rounded.dtype == torch.float32
    difference = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < difference < 2e-2


def test_weights_that_are_wholly_bfloat16_run_too(network):
    """The converter of openpi writes every tensor in bfloat16, norms and heads too."""
    with torch.no_grad():
        wanted = network.cast(torch.bfloat16).sample(
            network.prefix(**example_inputs(SMALL, 1, 0)), example_draws(SMALL, 1, 0)["x_t"], 3
        )
        network.to(torch.bfloat16)
        actions = network.sample(
            network.prefix(**example_inputs(SMALL, 1, 0)), example_draws(SMALL, 1, 0)["x_t"], 3
        )
    assert actions.dtype == torch.float32
    assert ((actions - wanted).abs().max() / wanted.abs().max()).item() < 2e-2


def test_rotary_frequencies_are_rounded_only_on_request(network):
    inputs = example_inputs(SMALL, 1, 0)
    with torch.no_grad():
        exact = network.prefix(**inputs)
        assert network.rope_dtype == torch.float32
        network.rope_dtype = torch.bfloat16
        rounded = network.prefix(**inputs)
    assert torch.equal(exact.v[0], rounded.v[0])
    assert 1e-4 < (exact.k - rounded.k).abs().max() / exact.k.abs().max() < 0.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputed_layers_give_the_same_gradients(network, dtype):
    gradients = []
    for recompute in (False, True):
        network.zero_grad()
        network.checkpoint_gradients(recompute)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = loss_of(network)
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, gradients[1][name]), name


def test_recomputation_keeps_far_fewer_activations(network):
    kept = []
    for recompute in (False, True):
        network.checkpoint_gradients(recompute)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(0 if t.is_leaf else t.nbytes) or t, lambda t: t
        ):
            loss_of(network)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_an_empty_network_has_every_buffer_and_no_weights(network):
    empty = Pi05.empty(SMALL)
    assert all(parameter.is_meta for parameter in empty.parameters())
    empty.load_state_dict(network.state_dict(), assign=True)
    inputs, noise = example_inputs(SMALL, 2, 0), example_draws(SMALL, 2, 0)["x_t"]
    with torch.no_grad():
        one = network.sample(network.prefix(**inputs), noise, 2)
        two = empty.sample(empty.prefix(**inputs), noise, 2)
    assert torch.equal(one, two)
