"""The training loop: the loss is flow matching's, it learns, it resumes exactly; its optimiser."""

from dataclasses import replace

import pytest
import torch
from support.tiny_bundle import TINY
from support.tiny_training import (
    CONFIG,
    REAL_DIMS,
    assert_equal,
    gradients,
    made_frames,
    made_network,
    made_trainer,
    take_steps,
    weights_of,
)
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from z1_ros.errors import TrainingError
from z1_ros.learning.sft.trainer import schedule, validation
from z1_ros.models.checkpoint.loading import read_tensors
from z1_ros.models.network.pi05 import Pi05, noisy_actions


@pytest.mark.parametrize(("loss_dims", "dims"), [("real", REAL_DIMS), ("all", TINY.action_dim)])
def test_padding_dimensions_count_where_configured_and_their_target_is_the_noise(loss_dims, dims):
    frames, network = made_frames(), made_network()
    made = made_trainer(replace(CONFIG, loss_dims=loss_dims, draws=1), network)
    found, found_gradients = gradients(made, frames)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, TINY.horizon, TINY.action_dim, generator=generator)
    time = torch.rand(8, generator=generator) ** (2 / 3) * 0.999 + 0.001
    prefix = network.prefix(**frames.inputs(torch.arange(8), None, generator))
    x_t, target = noisy_actions(frames.chunks[:8], noise, time)
    assert torch.equal(target[..., REAL_DIMS:], noise[..., REAL_DIMS:])
    error = network.denoise(x_t, time, prefix) - target
    torch.testing.assert_close(found, error[..., :dims].square().mean())
    moved = found_gradients["action_out_proj.bias"] != 0
    assert moved.tolist() == [True] * dims + [False] * (TINY.action_dim - dims)


@pytest.mark.parametrize("loss_dims", ["real", "all"])
def test_training_lowers_the_held_out_error_of_the_averaged_weights(loss_dims):
    frames = made_frames()
    made = made_trainer(replace(CONFIG, steps=150, loss_dims=loss_dims))
    before = validation(made, frames, 3)
    take_steps(made, frames, 150)
    after = validation(made, frames, 3)
    limit = {"real": 0.5, "all": 0.7}[loss_dims]
    assert after["held_out_loss"] < limit * before["held_out_loss"]
    assert after["held_out_action_error"] < limit * before["held_out_action_error"]


def test_validation_leaves_no_trace_and_sees_the_average():
    frames = made_frames()
    made = made_trainer()
    take_steps(made, frames, 3)
    before = weights_of(made)
    found = validation(made, frames, 2)
    assert_equal(before, weights_of(made))
    averaged = made_trainer(network=Pi05(TINY))
    averaged.network.load_state_dict(made.weights())
    averaged.average.tensors.update({n: w.clone() for n, w in made.weights().items()})
    assert found == validation(averaged, frames, 2)
    assert found != validation(made_trainer(network=made.network), frames, 2)


def test_a_killed_and_resumed_run_gives_the_weights_of_an_unbroken_one(tmp_path):
    frames = made_frames()
    whole = made_trainer()
    take_steps(whole, frames, 12)
    first = made_trainer()
    take_steps(first, frames, 5)
    first.save(tmp_path / "checkpoint.safetensors")
    take_steps(first, frames, 3)  # lost with the kill
    second = made_trainer()
    second.resume(tmp_path / "checkpoint.safetensors")
    assert second.step == 5
    take_steps(second, frames, 7)
    assert_equal(weights_of(whole), weights_of(second))


def test_a_run_saved_before_its_first_step_resumes(tmp_path):
    first = made_trainer(replace(CONFIG, ema=0.0))
    first.save(tmp_path / "c.safetensors")
    second = made_trainer(replace(CONFIG, ema=0.0))
    second.resume(tmp_path / "c.safetensors")
    frames = made_frames()
    assert take_steps(first, frames, 2) == take_steps(second, frames, 2)


def test_a_checkpoint_of_other_settings_is_refused_naming_the_one(tmp_path):
    made = made_trainer()
    take_steps(made, made_frames(), 1)
    made.save(tmp_path / "checkpoint.safetensors")
    with pytest.raises(TrainingError, match=r"made with tasks = \['A'\], now it is \['B'\];"):
        made_trainer(tasks=["B"]).resume(tmp_path / "checkpoint.safetensors")


def test_a_time_budget_shapes_the_schedule_and_ends_the_run(tmp_path):
    made = made_trainer(replace(CONFIG, minutes=0.02, steps=1))
    records = list(made.train(made_frames(), tmp_path / "c.safetensors", lambda _: {}))
    assert made.progress == 1 and made.step > 1
    assert 1.2 <= made.elapsed_s < 3
    assert records[-1]["step"] == made.step
    assert (tmp_path / "c.safetensors").is_file()


def test_steps_are_exact_and_every_run_ends_with_checkpoint_and_validation(tmp_path):
    made = made_trainer(replace(CONFIG, steps=7))
    records = list(made.train(made_frames(), tmp_path / "c.safetensors", lambda _: {"held_out": 1}))
    assert made.step == 7
    assert [("loss" in r, "held_out" in r) for r in records] == [(True, False), (False, True)]


def test_a_frozen_vlm_does_not_move_and_costs_no_average_and_no_checkpoint(tmp_path):
    config = replace(CONFIG, freeze_vlm=True)
    made = made_trainer(config)
    before = weights_of(made)
    take_steps(made, made_frames(), 3)
    after = weights_of(made)
    trained = {"expert", "time", "action_in_proj", "action_out_proj"}
    moved = {
        n.removeprefix("ema.").split(".")[0] for n in before if not torch.equal(before[n], after[n])
    }
    assert moved <= trained and "expert" in moved
    assert {n.split(".")[0] for n in made.average.tensors} == trained
    made.save(tmp_path / "c.safetensors")
    again = made_trainer(config)
    again.resume(tmp_path / "c.safetensors")
    assert_equal(weights_of(made), weights_of(again))
    assert made.weights().keys() == Pi05(TINY).state_dict().keys()
    stored = read_tensors(tmp_path / "c.safetensors")
    assert {name.split(".")[1] for name in stored} == trained


def test_without_an_average_the_last_weights_are_kept():
    made = made_trainer(replace(CONFIG, ema=0.0))
    take_steps(made, made_frames(), 2)
    assert made.average.tensors == {}
    assert_equal(made.weights(), {n: p.detach() for n, p in made.network.named_parameters()})


def test_bfloat16_computes_low_and_keeps_weights_gradients_and_loss_in_float32():
    made = made_trainer(replace(CONFIG, precision="bfloat16"))
    frames = made_frames()
    assert made.encode(frames.inputs(torch.arange(2), None, torch.Generator())).k.dtype == (
        torch.bfloat16
    )
    loss, found = gradients(made, frames)
    exact_loss, exact = gradients(made_trainer(), frames)
    assert {loss.dtype} | {g.dtype for g in found.values()} == {torch.float32}
    torch.testing.assert_close(loss, exact_loss, rtol=1e-2, atol=0)
    for name, gradient in found.items():
        assert (gradient - exact[name]).abs().max() < 5e-2 * exact[name].abs().max() + 1e-8, name
    losses = take_steps(made, frames, 40)
    assert {p.dtype for p in made.network.parameters()} == {torch.float32}
    assert sum(losses[-5:]) < sum(losses[:5])


def test_weights_that_come_in_bfloat16_train_in_float32_and_go_out_in_bfloat16():
    frames = made_frames()
    network = made_network().cast(torch.bfloat16)
    came = {n: p.detach().clone() for n, p in network.named_parameters()}
    made = made_trainer(replace(CONFIG, freeze_vlm=True, precision="bfloat16"), network)
    take_steps(made, frames, 2)
    assert {p.dtype for p in made.parameters.values()} == {torch.float32}
    assert made.network.vlm.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    gone = made.weights()
    assert {n: p.dtype for n, p in gone.items()} == {n: p.dtype for n, p in came.items()}
    frozen = [n for n in came if n not in made.parameters]
    assert_equal({n: came[n] for n in frozen}, {n: gone[n] for n in frozen})
    exact = made_trainer(replace(CONFIG, freeze_vlm=True), made_network().cast(torch.bfloat16))
    assert {p.dtype for p in exact.network.parameters()} == {torch.float32}


class Retained(TorchDispatchMode):
    """Counts the bytes of tensors that were computed and are still alive."""

    def __init__(self):
        super().__init__()
        self._made = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._made[StorageWeakRef(storage)] = storage.nbytes()
        return made

    def bytes(self):
        return sum(size for storage, size in self._made.items() if not storage.expired())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradient_checkpointing_gives_equal_gradients_and_keeps_fewer_activations(precision):
    frames, found, retained = made_frames(), {}, {}
    geometry = replace(TINY, vision_depth=4, depth=5)
    for enabled in (False, True):
        config = replace(CONFIG, gradient_checkpointing=enabled, precision=precision)
        made = made_trainer(config, made_network(geometry))
        found[enabled] = gradients(made, frames)
        inputs = frames.inputs(torch.arange(8), None, torch.Generator())
        with Retained() as activations:
            prefix = made.encode(inputs)
            retained[enabled] = activations.bytes()
        assert prefix.k.requires_grad
    assert torch.equal(found[False][0], found[True][0])
    assert_equal(found[False][1], found[True][1])
    assert retained[True] < 0.5 * retained[False]


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(tmp_path):
    made = made_trainer(replace(CONFIG, steps=30, checkpoint_minutes=0.0))
    frames = made_frames()
    frames.chunks[:] = float("nan")
    with pytest.raises(TrainingError, match="the loss is nan at step 1;"):
        list(made.train(frames, tmp_path / "c.safetensors", lambda _: {}))
    assert not (tmp_path / "c.safetensors").exists()


def test_the_schedule_warms_up_and_falls_to_its_floor():
    made = made_trainer(replace(CONFIG, steps=100, warmup=0.1))
    rates = []
    for made.step in range(101):
        rates.append(made.learning_rate())
    assert rates[0] < rates[5] < rates[10] == max(rates)
    assert rates[10] == pytest.approx(CONFIG.learning_rate)
    assert rates[100] == pytest.approx(0.02 * CONFIG.learning_rate)
    assert schedule(0.0, 0.0) == 1


def test_vlm_and_expert_have_their_own_learning_rates():
    made = made_trainer(replace(CONFIG, vlm_learning_rate=0.0), made_network())
    before = weights_of(made)
    take_steps(made, made_frames(), 3)
    after = weights_of(made)
    moved = {n.split(".")[0] for n in made.parameters if not torch.equal(before[n], after[n])}
    assert moved == {"expert", "time", "action_in_proj", "action_out_proj"}


def test_matrices_decay_while_embeddings_norms_and_biases_do_not():
    made = made_trainer()
    groups = made._optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    kept = {n for n, p in made.parameters.items() if decay[id(p)] == 0}
    assert len(decay) == len(made.parameters)
    assert {
        "vision.embeddings.position_embedding.weight",
        "vlm.embed_tokens.weight",
        "vlm.last.input_layernorm.weight",
        "vision.post_layernorm.weight",
        "action_in_proj.bias",
    } <= kept
    assert (
        not {
            "vision.embeddings.patch_embedding.weight",
            "vlm.last.k_proj.weight",
            "expert.norm.dense.weight",
            "action_in_proj.weight",
        }
        & kept
    )
