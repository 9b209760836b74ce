"""Gradient checkpointing."""

import torch
from torch import nn

from z1_ros.models.network.recompute import run_layer


class Counting(nn.Module):
    """A layer that counts how often it ran."""

    def __init__(self):
        super().__init__()
        self.linear, self.runs = nn.Linear(3, 3), 0

    def forward(self, x, scale=1.0):
        self.runs += 1
        return self.linear(x).tanh() * scale


def test_a_recomputed_layer_runs_again_in_the_backward_pass_with_equal_gradients() -> None:
    x, gradients = torch.randn(2, 3), []
    layer = Counting()
    for recompute, runs in ((False, 1), (True, 2)):
        layer.runs = 0
        layer.zero_grad()
        run_layer(layer, x, scale=2.0, recompute=recompute).sum().backward()
        assert layer.runs == runs
        gradients.append(layer.linear.weight.grad.clone())
    assert torch.equal(*gradients)


def test_without_gradients_nothing_is_recomputed() -> None:
    layer = Counting()
    with torch.no_grad():
        run_layer(layer, torch.randn(2, 3), recompute=True)
    assert layer.runs == 1
