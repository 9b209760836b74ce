"""Averaged weights: how they follow the weights, and how they take their place for a while."""

import pytest
import torch

from z1_ros.learning.core.ema import WeightAverage


@pytest.fixture
def parameters():
    return {"w": torch.nn.Parameter(torch.zeros(3))}


def follow(average, parameters, values):
    """Let the weights take values one after another."""
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            parameters["w"].fill_(value)
        average.update(step)


def test_without_decay_there_is_no_average_and_no_memory(parameters):
    average = WeightAverage(parameters, 0.0)
    follow(average, parameters, [1.0])
    assert average.tensors == {}
    with average.in_place():
        assert parameters["w"].tolist() == [1, 1, 1]


def test_a_decay_of_one_is_the_plain_mean_of_all_values(parameters):
    average = WeightAverage(parameters, 1.0, warmup=1)
    follow(average, parameters, [1.0, 2.0, 9.0])
    torch.testing.assert_close(average.tensors["w"], torch.full((3,), 12 / 4))


def test_its_memory_is_short_at_first(parameters):
    average = WeightAverage(parameters, 0.5, warmup=10)
    follow(average, parameters, [11.0])
    torch.testing.assert_close(average.tensors["w"], torch.full((3,), 10.0))
    average.update(1000)
    torch.testing.assert_close(average.tensors["w"], torch.full((3,), 10.5))


def test_the_weights_come_back_from_under_the_average_also_after_an_error(parameters):
    average = WeightAverage(parameters, 0.5, warmup=1)
    follow(average, parameters, [4.0])
    with pytest.raises(KeyboardInterrupt), average.in_place():
        assert parameters["w"].tolist() == [2, 2, 2]
        raise KeyboardInterrupt
    assert parameters["w"].tolist() == [4, 4, 4]
    assert average.tensors["w"].tolist() == [2, 2, 2]
