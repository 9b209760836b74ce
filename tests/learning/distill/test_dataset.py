"""The aggregated data set: rounds of samples in memory and on disk, of which a window is kept."""

import numpy as np
import pytest
import torch
from support.tiny_bundle import TINY

from z1_ros.errors import CheckpointError
from z1_ros.learning.distill.dataset import DaggerDataset, DaggerSamples
from z1_ros.models.network.pi05 import Prefix

SHAPE = (TINY.horizon, TINY.action_dim)


def made_samples(count, value=0.0):
    """Return samples whose every number is ``value`` and whose label ends at their number."""
    samples = DaggerSamples()
    for number in range(count):
        k, v = torch.full((2, 2, 1, 1, 3, 4), value)
        assert samples.observe(Prefix(k, v, torch.ones(1, 3, dtype=torch.bool)), 0) == number
        samples.label(number, torch.full(SHAPE, value), np.arange(TINY.horizon) <= number)
    return samples


def test_samples_come_back_from_their_tensors():
    samples = made_samples(3, 0.25)
    again = DaggerSamples.from_tensors(samples.tensors())
    assert len(again) == 3 and again.label_steps == samples.label_steps == 1 + 2 + 3
    for i in range(3):
        for one, two in zip(again.take(i), samples.take(i), strict=True):
            assert torch.equal(one, two)


def test_a_round_without_samples_can_be_written_and_read(tmp_path):
    dataset = DaggerDataset(tmp_path, 2)
    dataset.add(1, DaggerSamples())
    again = DaggerDataset(tmp_path, 2)
    again.load(1, 2)
    assert len(again) == 0


def test_only_the_windows_rounds_are_kept(tmp_path):
    dataset = DaggerDataset(tmp_path / "dagger", 2)
    for number in range(5, 9):
        dataset.add(number, made_samples(number))
    assert len(dataset) == 7 + 8
    dataset.forget_files(9)
    names = sorted(path.name for path in (tmp_path / "dagger").iterdir())
    assert names == ["round-00007.safetensors", "round-00008.safetensors"]
    again = DaggerDataset(tmp_path / "dagger", 2)
    again.load(5, 9)
    assert len(again) == 15


def test_a_missing_round_is_named(tmp_path):
    dataset = DaggerDataset(tmp_path, 2)
    dataset.add(5, made_samples(1))
    with pytest.raises(CheckpointError, match=r"round-00006\.safetensors is missing.*--no-resume"):
        DaggerDataset(tmp_path, 2).load(5, 7)


def test_a_new_run_removes_the_rounds_of_an_earlier_one_and_nothing_else(tmp_path):
    dataset = DaggerDataset(tmp_path, 2)
    dataset.add(5, made_samples(1))
    (tmp_path / "notes.txt").touch()
    dataset.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_batch_is_drawn_from_all_rounds(tmp_path):
    dataset = DaggerDataset(tmp_path, 2)
    dataset.add(1, made_samples(2, 0.5))
    dataset.add(2, made_samples(2, -0.5))
    prefix, chunks, valid = dataset.draw(64, torch.Generator().manual_seed(0))
    assert prefix.k.shape[1] == len(prefix.valid) == len(chunks) == len(valid) == 64
    assert prefix.k.dtype == torch.float32
    drawn = chunks[:, 0, 0]
    assert set(drawn.tolist()) == {0.5, -0.5}
    assert torch.equal(prefix.k[0, :, 0, 0, 0], drawn)
    again = dataset.draw(64, torch.Generator().manual_seed(0))[1]
    assert torch.equal(again, chunks)
