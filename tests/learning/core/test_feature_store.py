"""Prefixes of a frozen VLM: encoded once, kept in memory, and the same to training."""

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
from z1_ros.learning.core.prefix_cache import PrefixCache
from z1_ros.learning.sft.dataset import Augmentation
from z1_ros.models.network.pi05 import Prefix

FROZEN = replace(CONFIG, freeze_vlm=True)
CACHED = replace(FROZEN, feature_store_gb=1.0)
CPU = torch.device("cpu")


def made_prefix(batch, seed=0, dtype=torch.float32) -> Prefix:
    random = torch.Generator().manual_seed(seed)
    k, v = torch.randn(2, 3, batch, 1, 5, 4, generator=random).to(dtype)
    return Prefix(k, v, torch.rand(batch, 5, generator=random) < 0.8)


def row_gb(prefix: Prefix) -> float:
    """Memory of one observation [GB]."""
    return (2 * prefix.k[:, 0].nbytes + prefix.valid.shape[1]) / 1e9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_back_as_they_were_written_in_any_order(dtype):
    prefix = made_prefix(4, dtype=dtype)
    cache = PrefixCache(6, prefix, 1.0)
    cache.write(torch.tensor([5, 0, 3, 2]), prefix)
    assert cache.holds(torch.tensor([0, 1, 2, 3, 4, 5])).tolist() == [1, 0, 1, 1, 0, 1]
    found = cache.read(torch.tensor([2, 5, 2]), CPU)
    assert found.k.dtype == dtype
    for ours, theirs, axis in zip(found, prefix, (1, 1, 0), strict=True):
        assert torch.equal(ours, theirs.index_select(axis, torch.tensor([3, 0, 3])))


def test_a_row_can_be_written_again():
    cache = PrefixCache(2, made_prefix(1), 1.0)
    cache.write(torch.tensor([0, 1]), made_prefix(2))
    cache.write(torch.tensor([1]), made_prefix(1, seed=1))
    assert torch.equal(cache.read(torch.tensor([1]), CPU).v, made_prefix(1, seed=1).v)
    assert torch.equal(cache.read(torch.tensor([0]), CPU).v, made_prefix(2).v[:, :1])


def test_no_more_rows_are_kept_than_the_memory_allows():
    prefix = made_prefix(4)
    cache = PrefixCache(4, prefix, 2.5 * row_gb(prefix))
    assert cache.capacity == 2
    cache.write(torch.arange(4), prefix)
    assert cache.holds(torch.arange(4)).tolist() == [True, True, False, False]
    with pytest.raises(TrainingError, match=r"none fits into a prefix cache of 1e-07 GB; all 4"):
        PrefixCache(4, prefix, 1e-7)


def test_what_is_not_held_is_encoded_and_put_in_its_place():
    prefix = made_prefix(5)
    cache = PrefixCache(5, prefix, 1.0)
    cache.write(
        torch.tensor([1, 3]), Prefix(prefix.k[:, [1, 3]], prefix.v[:, [1, 3]], prefix.valid[[1, 3]])
    )
    rows, asked = torch.tensor([4, 1, 0, 3, 1]), []

    def encode(places):
        asked.extend(rows[places].tolist())
        return Prefix(
            prefix.k[:, rows[places]], prefix.v[:, rows[places]], prefix.valid[rows[places]]
        )

    found = cache.fetch(rows, encode)
    assert asked == [4, 0]
    for ours, theirs, axis in zip(found, prefix, (1, 1, 0), strict=True):
        assert torch.equal(ours, theirs.index_select(axis, rows))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cached_prefix_gives_the_loss_and_the_gradients_of_a_fresh_one(precision):
    frames = made_frames()
    made = made_trainer(replace(CACHED, precision=precision), made_network())
    fresh_loss, fresh = gradients(made, frames)
    list(made.fill_cache(frames))
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
    made = made_trainer(CACHED)
    encode = made.encode

    def counted(inputs):
        encoded.append(len(inputs["tokens"]))
        return encode(inputs)

    made.encode = counted
    assert list(made.fill_cache(frames)) == [0.4, 0.8, 1.0]
    take_steps(made, frames, 5)
    assert encoded == [8, 8, 4]


@pytest.mark.parametrize(
    "changes",
    [{}, {"feature_store_gb": 3e-4}, {"feature_variants": 3}],
    ids=["whole", "partly", "augmented"],
)
def test_a_resumed_run_finds_the_same_cache_and_gives_the_same_weights(changes, tmp_path):
    frames, config = made_frames(), replace(CACHED, **changes)
    whole = made_trainer(config)
    take_steps(whole, frames, 8)
    first = made_trainer(config)
    take_steps(first, frames, 3)
    first.save(tmp_path / "c.safetensors")
    second = made_trainer(config)
    second.resume(tmp_path / "c.safetensors")
    take_steps(second, frames, 5)
    assert_equal(weights_of(whole), weights_of(second))
    share = whole.cache.capacity / (len(frames) * config.feature_variants)
    assert 0.1 < share < 0.9 if "feature_store_gb" in changes else share == 1


def test_training_learns_from_the_cache():
    frames = made_frames()
    made = made_trainer(replace(CACHED, steps=60))
    losses = take_steps(made, frames, 60)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_one_variant_is_the_plain_frame_and_the_others_are_augmented_differently():
    frames = made_frames(8)
    config = replace(CACHED, feature_variants=3, augmentation=Augmentation(shift_px=0))
    made = made_trainer(config, made_network())
    list(made.fill_cache(frames))
    plain, one, two = (made.cache.read(torch.arange(8) + 8 * n, CPU).k for n in range(3))
    index, generator = torch.arange(8), torch.Generator()
    torch.testing.assert_close(plain, made.encode(frames.inputs(index, None, generator)).k)
    assert not torch.equal(plain, one) and not torch.equal(one, two)
    drawn = made._prefix(frames, torch.zeros(200, dtype=torch.long), generator.manual_seed(0)).k
    matches = [
        (drawn == v[:, :1]).flatten(2).all(-1).all(0).sum().item() for v in (plain, one, two)
    ]
    assert sum(matches) == 200 and min(matches) > 40
