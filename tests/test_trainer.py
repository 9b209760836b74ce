"""The training loop: the loss is flow matching's, it learns, and it resumes exactly."""

from dataclasses import replace

import pytest
import torch
from tiny_bundle import TINY

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.models.pi05 import Pi05
from z1_ros.rl.dataset import Augmentation, Frames
from z1_ros.rl.loss import flow_loss
from z1_ros.rl.train_config import TrainConfig
from z1_ros.rl.trainer import Trainer, validation

CONFIG = TrainConfig(
    steps=40,
    batch_size=8,
    draws=2,
    learning_rate=3e-3,
    ema=0.9,
    augmentation=Augmentation(shift_px=1),
)


@pytest.fixture(autouse=True)
def one_thread():
    """A network this small only waits for its threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made_frames(count=64) -> Frames:
    """Frames whose chunk is told by the brightness of the first camera."""
    random = torch.Generator().manual_seed(0)
    level = torch.rand(count, generator=random)
    images = torch.randint(0, 256, (count, 3, 32, 32, 3), generator=random).byte()
    images[:, 0] = (level * 255).byte()[:, None, None, None]
    chunks = torch.zeros(count, TINY.horizon, TINY.action_dim)
    chunks[..., :7] = (2 * level - 1)[:, None, None]
    return Frames(
        images=images,
        tokens=torch.tensor([[2, 5, 6] + [0] * 45] * count, dtype=torch.int32),
        chunks=chunks,
        valid=torch.ones(count, TINY.horizon, dtype=torch.bool),
        starts=torch.tensor([0]),
        counts=torch.tensor([count]),
    )


def trainer(config=CONFIG, **identity) -> Trainer:
    network = Pi05(TINY).init_weights(config.seed)
    return Trainer(network, config, 7, torch.device("cpu"), {"tasks": ["A"], **identity})


def run(made: Trainer, frames: Frames, steps: int) -> list[float]:
    return [made.train_step(frames).item() for _ in range(steps)]


def weights_of(made: Trainer) -> dict[str, torch.Tensor]:
    own = {n: p.detach().clone() for n, p in made.network.named_parameters()}
    return own | {f"ema.{n}": p.clone() for n, p in made.average.tensors.items()}


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [n for n in one if not torch.equal(one[n], two[n])] == []


def test_loss_is_the_mean_square_of_velocity_error_over_what_counts():
    frames = made_frames(4)
    network = Pi05(TINY).init_weights(0)  # velocity is exactly zero
    inputs = frames.inputs(torch.arange(2), None, torch.Generator())
    noise = torch.randn(6, TINY.horizon, TINY.action_dim)
    valid = torch.zeros(2, TINY.horizon, dtype=torch.bool)
    valid[0, :3] = valid[1, :1] = True
    prefix = network.prefix(**inputs)
    found = flow_loss(network, prefix, frames.chunks[:2], valid, noise, torch.rand(6), dims=7)
    target = (noise - frames.chunks[:2].repeat_interleave(3, 0))[..., :7]
    kept = torch.cat([target[:3, :3].reshape(-1, 7), target[3:, :1].reshape(-1, 7)])
    torch.testing.assert_close(found, kept.square().mean())


def test_training_lowers_the_held_out_error_of_the_averaged_weights():
    frames = made_frames()
    made = trainer(replace(CONFIG, steps=150))
    before = validation(made, frames, 3)
    run(made, frames, 150)
    after = validation(made, frames, 3)
    assert after["held_out_loss"] < 0.5 * before["held_out_loss"]
    assert after["held_out_action_error"] < 0.5 * before["held_out_action_error"]


def test_a_killed_and_resumed_run_gives_the_weights_of_an_unbroken_one(tmp_path):
    frames = made_frames()
    whole = trainer()
    run(whole, frames, 12)
    first = trainer()
    run(first, frames, 5)
    first.save(tmp_path / "checkpoint.safetensors")
    run(first, frames, 3)  # lost with the kill
    second = trainer()
    second.resume(tmp_path / "checkpoint.safetensors")
    assert second.step == 5
    run(second, frames, 7)
    assert_equal(weights_of(whole), weights_of(second))


def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path):
    made = trainer()
    run(made, made_frames(), 1)
    made.save(tmp_path / "checkpoint.safetensors")
    with pytest.raises(TrainingError, match=r"made with tasks = \['A'\], not \['B'\]"):
        trainer(tasks=["B"]).resume(tmp_path / "checkpoint.safetensors")


def test_the_schedule_warms_up_and_falls_to_its_floor():
    made = trainer(replace(CONFIG, steps=100, warmup=0.1))
    rates = []
    for made.step in range(101):
        rates.append(made.learning_rate())
    assert rates[0] < rates[5] < rates[10] == max(rates)
    assert rates[10] == pytest.approx(CONFIG.learning_rate)
    assert rates[100] == pytest.approx(0.02 * CONFIG.learning_rate)


def test_a_time_budget_shapes_the_schedule_and_ends_the_run(tmp_path):
    made = trainer(replace(CONFIG, minutes=0.02, steps=1))
    records = list(made.train(made_frames(), tmp_path / "c.safetensors", lambda _: {}))
    assert made.progress == 1 and made.step > 1
    assert made.elapsed_s >= 1.2
    assert records[-1]["step"] == made.step
    assert (tmp_path / "c.safetensors").is_file()


def test_steps_are_exact_and_every_run_ends_with_checkpoint_and_validation(tmp_path):
    made = trainer(replace(CONFIG, steps=7))
    records = list(made.train(made_frames(), tmp_path / "c.safetensors", lambda _: {"held_out": 1}))
    assert made.step == 7
    assert [("loss" in r, "held_out" in r) for r in records] == [(True, False), (False, True)]


def test_a_frozen_vlm_does_not_move(tmp_path):
    made = trainer(replace(CONFIG, freeze_vlm=True))
    before = weights_of(made)
    run(made, made_frames(), 3)
    after = weights_of(made)
    moved = {
        n.removeprefix("ema.").split(".")[0] for n in before if not torch.equal(before[n], after[n])
    }
    assert moved <= {"expert", "time", "action_in_proj", "action_out_proj"} and "expert" in moved
    made.save(tmp_path / "c.safetensors")
    again = trainer(replace(CONFIG, freeze_vlm=True))
    again.resume(tmp_path / "c.safetensors")
    assert_equal(weights_of(made), weights_of(again))


def test_bfloat16_keeps_float32_weights_and_learns():
    made = trainer(replace(CONFIG, precision="bfloat16"))
    losses = run(made, made_frames(), 40)
    assert {p.dtype for p in made.network.parameters()} == {torch.float32}
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    made = trainer(replace(CONFIG, steps=3))
    frames = made_frames()
    frames.chunks[:] = float("nan")
    with pytest.raises(TrainingError, match="the loss is nan at step 3"):
        list(made.train(frames, tmp_path / "c.safetensors", lambda _: {}))
    assert not (tmp_path / "c.safetensors").exists()


@pytest.mark.parametrize(
    "wrong", [{"precision": "fp16"}, {"loss_dims": "some"}, {"ema": 1.0}, {"batch_size": 0}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        TrainConfig(**wrong)
