"""Settings of z1-teach: ranges and budgets."""

from dataclasses import replace

import pytest
from support.teaching import CLONE, DAGGER, TEACHER, distill_config

from z1_ros.errors import ConfigError


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (CLONE, {"clone_dropout": 1.0}, r"clone_dropout is 1\.0, expected less than 1"),
        (CLONE, {"clone_episodes": 0}, "clone_episodes is 0, expected at least 1"),
        (TEACHER, {"gamma": 1.5}, r"gamma is 1\.5, expected at most 1"),
        (TEACHER, {"sigma": float("nan")}, "sigma is nan"),
        (TEACHER, {"teacher_eval_episodes": 1001}, "teacher_eval_episodes is 1001"),
        (TEACHER, {"recovery_share": 1.5}, r"recovery_share is 1\.5, expected at most 1"),
        (DAGGER, {"ema": 1.0}, r"ema is 1\.0, expected less than 1"),
        (DAGGER, {"draws": 0}, "draws is 0, expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(config, **changes)


def test_a_run_needs_a_budget(tmp_path):
    with pytest.raises(ConfigError, match="never end"):
        distill_config(tmp_path, iterations=0)
