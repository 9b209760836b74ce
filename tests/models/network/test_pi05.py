"""The network against π0.5's published implementations, and its own invariants."""

import pytest
import torch
from safetensors.torch import load_file
from support.micro import DATA, MICRO, OPENPI

from z1_ros.models.checkpoint.layouts import from_openpi
from z1_ros.models.checkpoint.loading import load_checkpoint
from z1_ros.models.network.geometry import FULL, SMALL
from z1_ros.models.network.pi05 import Pi05, draw_time, noisy_actions


@pytest.fixture(scope="module")
def golden():
    """Inputs, intermediates, outputs and gradients of LeRobot 0.6.1's π0.5, seeded weights."""
    return load_file(DATA / "golden.safetensors")


@pytest.fixture
def network():
    return load_checkpoint(OPENPI, MICRO)


def prefix_inputs(golden):
    images = torch.stack([golden[f"in.image{i}"] for i in range(3)], 1)
    image_mask = torch.stack([golden[f"in.img_mask{i}"] for i in range(3)], 1)
    return images, image_mask, golden["in.tokens"], golden["in.masks"]


def relative_error(value, reference):
    return ((value - reference).abs().max() / reference.abs().max()).item()


def test_prefix_embedding_keys_and_values_are_those_of_the_reference(network, golden):
    embedded, valid_tokens = network.embed_prefix(*prefix_inputs(golden))
    assert relative_error(embedded, golden["mid.prefix_embs"]) < 5e-6
    assert torch.equal(valid_tokens, golden["mid.prefix_pad"])
    prefix = network.prefix(*prefix_inputs(golden))
    valid = valid_tokens[:, None, :, None]
    for layer in range(MICRO.depth):
        for ours, key in ((prefix.k, "k"), (prefix.v, "v")):
            reference = golden[f"mid.kv{layer}.{key}"]
            assert relative_error(ours[layer] * valid, reference * valid) < 5e-6


def test_time_condition_matches_the_float64_reference(network, golden):
    assert relative_error(network.time(golden["in.time"]), golden["mid.adarms_cond"]) < 5e-6


def test_every_euler_step_and_the_sampled_actions_match(network, golden):
    with torch.no_grad():
        prefix = network.prefix(*prefix_inputs(golden))
        for time, x, v in zip(
            golden["mid.step_time"], golden["mid.step_x"], golden["mid.step_v"], strict=True
        ):
            assert relative_error(network.denoise(x, time, prefix), v) < 5e-6
        actions = network.sample(prefix, golden["in.noise"], 10)
    assert relative_error(actions, golden["out.sample_actions"]) < 5e-6


def test_loss_and_gradients_match(network, golden):
    prefix = network.prefix(*prefix_inputs(golden))
    time = golden["in.time"]
    x_t, target = noisy_actions(golden["in.actions"], golden["in.noise"], time)
    loss = (network.denoise(x_t, time, prefix) - target).square()
    assert relative_error(loss, golden["out.loss"]) < 5e-6
    loss.mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    compared = 0
    for key, reference in golden.items():
        ours = from_openpi(key.removeprefix("grad."), MICRO.depth) if "grad." in key else None
        if ours in gradients:
            assert relative_error(gradients[ours], reference) < 2e-5, key
            compared += 1
    assert compared == 30


def test_no_parameter_is_dead(network, golden):
    prefix = network.prefix(*prefix_inputs(golden))
    network.denoise(golden["in.noise"], golden["in.time"], prefix).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_full_geometry_has_the_published_size():
    """3.353 B of π0.5, less what nothing reads: the last VLM layer beyond K/V, the final norm."""
    with torch.device("meta"):
        net = Pi05(FULL)
    dead = 2 * 2048 * 2048 + 3 * 2048 * 16384 + 2 * 2048
    assert sum(p.numel() for p in net.parameters()) + dead == 3_353_433_872


def test_kitchen_geometry_stays_small():
    count = sum(p.numel() for p in Pi05(SMALL).parameters())
    assert 8 * count < 22e6  # weights and two graphs in float32


def test_repeated_prefix_gives_each_draw_the_velocity_it_gets_alone(network, golden):
    with torch.no_grad():
        prefix = network.prefix(*prefix_inputs(golden))
        noise = torch.randn(6, 10, 32, generator=torch.Generator().manual_seed(0))
        time = torch.linspace(0.1, 0.9, 6)
        together = network.denoise(noise, time, prefix.repeat(3))
        for draw in range(3):
            alone = network.denoise(noise[draw::3], time[draw::3], prefix)
            torch.testing.assert_close(together[draw::3], alone, rtol=1e-5, atol=1e-6)


def test_padding_and_missing_cameras_change_nothing(network, golden):
    images, image_mask, tokens, token_mask = prefix_inputs(golden)
    with torch.no_grad():
        before = network.sample(
            network.prefix(images, image_mask, tokens, token_mask), golden["in.noise"], 2
        )
        images = torch.where(image_mask[..., None, None, None], images, 0.5)
        tokens = torch.where(token_mask, tokens, 7)
        after = network.sample(
            network.prefix(images, image_mask, tokens, token_mask), golden["in.noise"], 2
        )
    assert torch.equal(before, after)


def test_bfloat16_stays_close_to_float32(network, golden):
    with torch.no_grad():
        prefix = network.prefix(*prefix_inputs(golden))
        exact = network.denoise(golden["in.noise"], golden["in.time"], prefix)
        with torch.autocast("cpu", torch.bfloat16):
            prefix = network.prefix(*prefix_inputs(golden))
            rounded = network.denoise(golden["in.noise"], golden["in.time"], prefix)
    assert relative_error(rounded, exact) < 5e-2


def test_training_times_follow_beta_1_5_1():
    time = draw_time((200_000,), torch.Generator().manual_seed(0))
    assert time.min() >= 0.001 and time.max() <= 1.0
    assert abs(time.mean() - (0.6 * 0.999 + 0.001)) < 2e-3
    assert abs((time < 0.5).float().mean() - ((0.5 - 0.001) / 0.999) ** 1.5) < 3e-3


def test_initialisation_is_seeded_and_starts_from_zero_velocity():
    one, two = Pi05(MICRO).init_weights(3), Pi05(MICRO).init_weights(3)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    prefix = one.prefix(
        torch.zeros(1, 3, 3, 56, 56),
        torch.ones(1, 3, dtype=torch.bool),
        torch.ones(1, 48, dtype=torch.long),
        torch.ones(1, 48, dtype=torch.bool),
    )
    assert torch.count_nonzero(one.denoise(torch.ones(1, 10, 32), torch.ones(1), prefix)) == 0
