"""Training over the stored prefix features of a frozen VLM gives what encoding anew would."""

from dataclasses import replace

import pytest
import torch
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

from z1_ros.errors import TrainingError
from z1_ros.learning.sft.dataset import Augmentation

FROZEN = replace(CONFIG, freeze_vlm=True)
STORED = replace(FROZEN, feature_store_gb=1.0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stored_features_give_the_loss_and_the_gradients_of_fresh_ones(precision):
    frames = made_frames()
    made = made_trainer(replace(STORED, precision=precision), made_network())
    fresh_loss, fresh = gradients(made, frames)
    made.fill_features(frames)
    made.encode = None  # nothing is encoded any more
    index, generator = torch.arange(8), torch.Generator().manual_seed(0)
    prefix = made._prefix(frames, index, generator)
    loss = made.loss(prefix, frames.chunks[index], frames.valid[index], generator)
    loss.backward()
    torch.testing.assert_close(loss, fresh_loss, rtol=1e-6, atol=0)
    assert fresh.keys() == made.parameters.keys() and "expert.norm.dense.weight" in fresh
    for name, parameter in made.parameters.items():
        torch.testing.assert_close(parameter.grad, fresh[name], rtol=1e-5, atol=1e-7)


def test_each_frame_is_encoded_once():
    frames, encoded = made_frames(20), []
    made = made_trainer(STORED)
    encode = made.encode

    def counted(inputs):
        encoded.append(len(inputs["tokens"]))
        return encode(inputs)

    made.encode = counted
    shares = []
    made.fill_features(frames, shares.append)
    assert shares == [0.4, 0.8, 1.0]
    take_steps(made, frames, 5)
    assert encoded == [8, 8, 4]


@pytest.mark.parametrize(
    "changes",
    [{}, {"feature_store_gb": 3e-4}, {"feature_variants": 3}],
    ids=["whole", "partly", "augmented"],
)
def test_a_resumed_run_stores_the_same_features_and_gives_the_same_weights(changes, tmp_path):
    frames, config = made_frames(), replace(STORED, **changes)
    whole = made_trainer(config)
    take_steps(whole, frames, 8)
    first = made_trainer(config)
    take_steps(first, frames, 3)
    first.save(tmp_path / "c.safetensors")
    second = made_trainer(config)
    second.resume(tmp_path / "c.safetensors")
    take_steps(second, frames, 5)
    assert_equal(weights_of(whole), weights_of(second))
    share = len(whole.features) / (len(frames) * config.feature_variants)
    assert 0.1 < share < 0.9 if "feature_store_gb" in changes else share == 1


def test_training_learns_from_stored_features():
    frames = made_frames()
    made = made_trainer(replace(STORED, steps=60))
    losses = take_steps(made, frames, 60)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_one_variant_is_the_plain_frame_and_the_others_are_augmented_differently():
    frames = made_frames(8)
    config = replace(STORED, feature_variants=3, augmentation=Augmentation(shift_px=0))
    made = made_trainer(config, made_network())
    made.fill_features(frames)
    plain, one, two = (made.features.read(range(8 * n, 8 * n + 8)).k for n in range(3))
    index, generator = torch.arange(8), torch.Generator()
    torch.testing.assert_close(plain, made.encode(frames.inputs(index, None, generator)).k)
    assert not torch.equal(plain, one) and not torch.equal(one, two)
    drawn = made._prefix(frames, torch.zeros(200, dtype=torch.long), generator.manual_seed(0)).k
    matches = [
        (drawn == v[:, :1]).flatten(2).all(-1).all(0).sum().item() for v in (plain, one, two)
    ]
    assert sum(matches) == 200 and min(matches) > 40


def test_a_store_into_which_not_one_frame_fits_is_refused():
    made = made_trainer(replace(STORED, feature_store_gb=1e-7))
    with pytest.raises(TrainingError, match=r"not one .* feature store of 1e-07 GB; there are 64"):
        take_steps(made, made_frames(), 1)
