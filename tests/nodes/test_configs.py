"""The nodes' parameters: each is described, ranged where it is a number, refused where wrong."""

from dataclasses import fields

import pytest

from z1_ros.config import descriptions, flatten, unflatten
from z1_ros.errors import ConfigError
from z1_ros.nodes.configs import GuardNodeConfig, PolicyNodeConfig, SimBridgeConfig

CONFIGS = [PolicyNodeConfig(), GuardNodeConfig(), SimBridgeConfig()]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_every_parameter_is_described_and_every_number_has_a_range(config):
    texts = descriptions(type(config))
    assert all(texts[name] for name in flatten(config))
    for field in fields(config):
        is_number = type(getattr(config, field.name)) in (int, float)
        assert is_number == ("range" in field.metadata), field.name


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        (PolicyNodeConfig(), {"embodiment": "pandas"}, "no embodiment 'pandas'.*'panda'"),
        (PolicyNodeConfig(), {"threads": 0}, "threads is 0, expected 1 to 256"),
        (PolicyNodeConfig(), {"mode": "fast"}, "setting 'mode' is 'fast'. Known: lockstep, real"),
        (PolicyNodeConfig(), {"qos": "fast"}, "setting 'qos' is 'fast'"),
        (GuardNodeConfig(), {"guard.max_age_s": 0.5}, "max_age_s is 0.5 s, expected more than 0"),
        (SimBridgeConfig(), {"robot": "kitchn"}, "no simulator 'kitchn'.*'kitchen'"),
        (SimBridgeConfig(), {"video_size": -1}, "video_size is -1, expected 0 to 2048"),
        (SimBridgeConfig(), {"camera_hz": float("nan")}, "'camera_hz' is nan"),
    ],
)
def test_what_is_out_of_range_or_unknown_is_one_sentence(config, changes, says):
    with pytest.raises(ConfigError, match=says):
        unflatten(config, changes)
