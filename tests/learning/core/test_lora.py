"""Low-rank adapters: what they train, that every path sees them, and what they are merged into."""

import sys
from dataclasses import replace

import pytest
import torch
from support.tiny_bundle import TINY
from support.tiny_training import (
    CONFIG,
    assert_equal,
    gradients,
    made_frames,
    made_network,
    made_trainer,
    take_steps,
    weights_of,
)

from z1_ros.errors import ConfigError
from z1_ros.learning.core.lora import plain_weights
from z1_ros.learning.sft.trainer import validation
from z1_ros.models.checkpoint.loading import read_tensors
from z1_ros.models.network.pi05 import Pi05

pytest.importorskip("peft")

LORA = replace(CONFIG, lora_rank=2, lora_alpha=4.0)
ALL = replace(LORA, lora_targets="vlm,vision,expert")


def adapted(trainer) -> set[str]:
    """Return the names of the layers with adapters."""
    return {n.partition(".lora_")[0] for n in trainer.parameters if ".lora_" in n}


def test_new_adapters_change_nothing():
    frames = made_frames()
    plain, _ = gradients(made_trainer(network=made_network()), frames)
    with_adapters, _ = gradients(made_trainer(ALL, made_network()), frames)
    assert torch.equal(plain, with_adapters)


def test_each_target_names_all_linear_layers_of_its_part():
    attention = [f"self_attn.{x}_proj" for x in "qkvo"]
    gemma = attention + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    vision = [f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")] + ["mlp.fc1", "mlp.fc2"]
    vlm = {f"vlm.layers.0.{x}" for x in gemma} | {"vlm.last.k_proj", "vlm.last.v_proj"}
    expected = {
        "vlm": vlm,
        "vision": {f"vision.encoder.layers.0.{x}" for x in vision},
        "expert": {f"expert.layers.{i}.{x}" for i in range(2) for x in gemma},
    }
    for targets in ("vlm", "vision", "expert", "vlm,expert"):
        made = made_trainer(replace(LORA, lora_targets=targets))
        assert adapted(made) == set.union(*(expected[part] for part in targets.split(",")))
        assert type(made.network) is Pi05


@pytest.mark.parametrize(
    ("targets", "trained"),
    [
        ("vlm", {"expert", "time", "action_in_proj", "action_out_proj"}),
        ("expert", {"vision", "projector", "vlm", "time", "action_in_proj", "action_out_proj"}),
        ("vlm,vision,expert", {"time", "action_in_proj", "action_out_proj"}),
    ],
)
def test_of_an_adapted_part_only_the_adapters_move(targets, trained):
    made = made_trainer(replace(LORA, lora_targets=targets), made_network())
    before = weights_of(made)
    take_steps(made, made_frames(), 3)
    after = weights_of(made)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert {n.split(".")[0] for n in moved if "ema" not in n and ".lora_" not in n} == trained
    layers = {n.partition(".lora_")[0] for n in moved if ".lora_" in n and "ema" not in n}
    assert layers == adapted(made)
    assert {n.removeprefix("ema.") for n in moved if "ema" in n} == set(made.parameters)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_of_keys_and_values_get_their_gradient_from_what_the_expert_reads(checkpointing):
    """Keys and values are projected outside of the layer, from the same modules."""
    config = replace(ALL, gradient_checkpointing=checkpointing)
    made = made_trainer(config, made_network())
    with torch.no_grad():
        for name, parameter in made.parameters.items():
            if ".lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    _, found = gradients(made, made_frames())
    for layer in adapted(made):
        for matrix in "AB":
            assert found[f"{layer}.lora_{matrix}.default.weight"].abs().max() > 0, layer
    # The one head of the first layer also feeds the expert: its gradient is that of the product.
    layer = made.network.vlm.layers[0].self_attn.v_proj
    plain = made_trainer(network=merged_network(made))
    _, exact = gradients(plain, made_frames())
    expected = layer.lora_B["default"].weight.T @ exact["vlm.layers.0.self_attn.v_proj.weight"] * 2
    torch.testing.assert_close(
        found["vlm.layers.0.self_attn.v_proj.lora_A.default.weight"],
        expected,
        rtol=1e-4,
        atol=1e-5 * expected.abs().max().item(),
    )


def merged_network(trainer) -> Pi05:
    """Return a plain network with the trainer's present weights."""
    network = Pi05(TINY)
    network.load_state_dict(plain_weights(trainer.network))
    return network


def test_merged_weights_have_plain_names_and_do_what_network_and_adapters_did():
    frames = made_frames()
    made = made_trainer(ALL, made_network())
    take_steps(made, frames, 5)
    before = weights_of(made)
    merged = Pi05(TINY)
    merged.load_state_dict(made.weights())
    assert_equal(before, weights_of(made))
    network = made.network
    with made.average.in_place(), torch.no_grad():
        inputs = frames.inputs(torch.arange(4), None, torch.Generator())
        noise = torch.randn(4, TINY.horizon, TINY.action_dim)
        expected = network.sample(network.prefix(**inputs), noise, 3)
        found = merged.sample(merged.prefix(**inputs), noise, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    base = made_network()
    plain = base.sample(base.prefix(**inputs), noise, 3)
    assert (plain - expected).abs().max() > 1e-2
    assert torch.equal(merged.vlm.embed_tokens.weight, base.vlm.embed_tokens.weight)


def test_adapters_of_bfloat16_weights_are_float32_and_merge_into_bfloat16():
    network = made_network().cast(torch.bfloat16)
    made = made_trainer(replace(LORA, precision="bfloat16"), network)
    take_steps(made, made_frames(), 3)
    assert {p.dtype for p in made.parameters.values()} == {torch.float32}
    assert made.network.vlm.last.k_proj.base_layer.weight.dtype == torch.bfloat16
    came = made_network().cast(torch.bfloat16)
    gone = made.weights()
    assert {n: w.dtype for n, w in gone.items()} == {n: p.dtype for n, p in came.named_parameters()}
    with made.average.in_place(), torch.no_grad():
        layer = made.network.vlm.last.k_proj
        exact = layer.base_layer.weight.float() + layer.get_delta_weight("default")
    assert torch.equal(gone["vlm.last.k_proj.weight"], exact.bfloat16())


def test_a_killed_and_resumed_run_gives_the_weights_of_an_unbroken_one(tmp_path):
    frames = made_frames()
    whole = made_trainer(LORA)
    take_steps(whole, frames, 8)
    first = made_trainer(LORA)
    take_steps(first, frames, 3)
    first.save(tmp_path / "c.safetensors")
    second = made_trainer(LORA)
    second.resume(tmp_path / "c.safetensors")
    take_steps(second, frames, 5)
    assert_equal(weights_of(whole), weights_of(second))
    stored = {name.partition(".")[2] for name in read_tensors(tmp_path / "c.safetensors")}
    assert stored == set(whole.parameters)


def test_adapters_learn_and_validation_sees_them():
    frames = made_frames()
    made = made_trainer(replace(ALL, lora_rank=8, lora_alpha=16.0, steps=100), made_network())
    before = validation(made, frames, 3)["held_out_loss"]
    take_steps(made, frames, 100)
    assert validation(made, frames, 3)["held_out_loss"] < 0.7 * before


def test_adapters_of_the_expert_train_over_stored_features():
    config = replace(LORA, lora_targets="expert", freeze_vlm=True, feature_store_gb=1.0)
    made = made_trainer(config, made_network())
    assert not any(name.startswith(("vlm", "vision", "projector")) for name in made.parameters)
    losses = take_steps(made, made_frames(), 40)
    assert sum(losses[-10:]) < sum(losses[:10])


def test_the_same_seed_makes_the_same_adapters_whatever_was_drawn_before():
    one = made_trainer(LORA)
    torch.rand(3)
    two, other = made_trainer(LORA), made_trainer(replace(LORA, seed=1))
    assert_equal(weights_of(one), weights_of(two))
    name = "vlm.last.k_proj.lora_A.default.weight"
    assert not torch.equal(one.parameters[name], other.parameters[name])


def test_without_peft_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"lora_rank needs peft: pip install 'z1_ros\[lora\]'"):
        made_trainer(LORA)
