"""Settings of supervised training: ranges, and what goes together."""

import pytest

from z1_ros.errors import ConfigError
from z1_ros.learning.sft.config import TrainConfig, without_schedule


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ema": 1.0}, "fractions from 0"),
        ({"batch_size": 0}, "at least 1"),
        ({"minutes": -1.0}, "at least 0"),
        ({"feature_store_gb": 1.0}, "needs freeze_vlm"),
        ({"feature_variants": 2}, "give feature_store_gb"),
        ({"lora_rank": 4, "freeze_vlm": True}, "choose one"),
        ({"lora_rank": 4, "lora_targets": "vlm,exprt"}, "Did you mean 'expert'"),
    ],
)
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**wrong)


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({}, ()),
        ({"freeze_vlm": True}, ("vision", "projector", "vlm")),
        ({"lora_rank": 2, "lora_targets": "vision"}, ("vision", "projector", "vlm")),
        ({"lora_rank": 2, "lora_targets": "expert"}, ("expert",)),
        ({"lora_targets": "expert"}, ()),
    ],
)
def test_what_is_frozen_follows_from_the_settings(changes, frozen):
    assert set(TrainConfig(**changes).frozen_parts) == set(frozen)


def test_what_does_not_shape_the_weights_may_change_when_a_run_goes_on():
    other = TrainConfig(checkpoint_minutes=9.0, gradient_checkpointing=True, compile=True)
    assert without_schedule(other) == TrainConfig()
    assert without_schedule(TrainConfig(learning_rate=0.1)) != TrainConfig()
