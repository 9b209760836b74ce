"""The action expert and its time condition."""

import numpy as np
import torch
from support.micro import MICRO

from z1_ros.models.network.expert import (
    MAX_PERIOD,
    MIN_PERIOD,
    ActionExpert,
    AdaRMSNorm,
    TimeMLP,
    time_features,
    turn_rates,
)


def test_time_features_are_those_of_float64() -> None:
    width, time = 64, torch.linspace(0, 1, 257)
    period = MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** np.linspace(0, 1, width // 2)
    angles = time.double().numpy()[:, None] / period * 2 * np.pi
    exact = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    found = time_features(time, turn_rates(width))
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - exact).max() < 1e-6


def test_a_norm_without_modulation_is_a_plain_norm_with_a_closed_gate() -> None:
    norm = AdaRMSNorm(8)
    torch.nn.init.zeros_(norm.dense.weight)
    torch.nn.init.zeros_(norm.dense.bias)
    normed, gate = norm(torch.full((1, 2, 8), 3.0), torch.ones(1, 8))
    torch.testing.assert_close(normed, torch.ones(1, 2, 8))
    assert not gate.any()


def test_the_rates_of_the_time_condition_survive_casts_and_the_meta_device() -> None:
    with torch.device("meta"):
        built = TimeMLP(32)
    built.restore_buffers()
    assert torch.equal(built.rates, turn_rates(32))
    assert torch.equal(TimeMLP(32).to(torch.bfloat16).rates, turn_rates(32))


def test_the_suffix_does_not_see_invalid_parts_of_the_prefix() -> None:
    expert = ActionExpert(MICRO)
    shape = (MICRO.depth, 1, MICRO.kv_heads, 5, MICRO.head_dim)
    k, v = torch.randn(shape), torch.randn(shape)
    valid = torch.tensor([[True, True, True, False, False]])
    x, condition = torch.randn(1, 4, MICRO.expert_width), torch.randn(1, MICRO.expert_width)
    with torch.no_grad():
        before = expert(x, condition, k, v, valid)
        k[..., 3:, :], v[..., 3:, :] = 9.0, 9.0
        assert torch.equal(expert(x, condition, k, v, valid), before)
