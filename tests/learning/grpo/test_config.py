"""Settings of z1-train: ranges, and how they become a way to sample."""

from dataclasses import replace

import pytest
from support.grpo_runs import grpo_config

from z1_ros.errors import ConfigError
from z1_ros.learning.grpo.config import GrpoConfig
from z1_ros.learning.rollout.flow_sde import FlowSde


@pytest.mark.parametrize(
    "bad",
    [
        {"workers": 0},
        {"minutes": 0.0, "iterations": 0},
        {"max_chunks": -5},
        {"noise_level": 0.0},
        {"noise_level": 1.1},
        {"noise_correlation": 1.0},
        {"ema": -0.1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(tmp_path, bad):
    with pytest.raises(ConfigError):
        grpo_config(tmp_path, **bad)


def test_a_decay_beyond_one_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ema is 1\.1, expected at most 1"):
        grpo_config(tmp_path, ema=1.1)


@pytest.mark.parametrize(
    "bad",
    [
        {"group_size": 1},
        {"sharing": "tree", "group_size": 6},
        {"gamma": 0.0},
        {"filter_range": (0.9, 0.1)},
        {"filter_range": (0.1, 1.1)},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"clip": 0.0},
        {"clip_norm": 0.0},
        {"weight_decay": -1.0},
        {"shared_chunks": -1},
        {"flow_weight": -1.0},
        {"flow_weight": float("inf")},
        {"lora_rank": 0},
        {"minibatches": 0},
    ],
    ids=str,
)
def test_impossible_updates_are_refused(bad):
    with pytest.raises(ConfigError):
        GrpoConfig(**bad)


def test_a_policy_of_so_many_denoise_steps_samples_as_the_settings_say(tmp_path):
    config = grpo_config(tmp_path, noise="cps", noise_level=0.7, noise_correlation=0.1)
    wanted = FlowSde(noise="cps", noise_level=0.7, correlation=0.1, steps=5, stochastic="all")
    assert config.sde(5) == wanted
    assert replace(config, stochastic="one").sde(5).noises == 1
