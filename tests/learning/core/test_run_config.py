"""Settings of any run: budgets and ranges."""

import pytest

from z1_ros.errors import ConfigError
from z1_ros.learning.core.run_config import RunConfig


def config(tmp_path, **changes):
    return RunConfig(**({"bundle": "tiny", "task": "OpenDrawer", "out": tmp_path} | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": 0}, "workers is 0, expected at least 1"),
        ({"minutes": float("nan")}, "minutes is nan, expected at least 0"),
        ({"eval_every": 0}, "eval_every is 0, expected at least 1"),
        ({"eval_episodes": 1001}, "eval_episodes is 1001, expected at most 1000"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"minutes": 0.0}, "training would never end"),
        ({"robot": "kitchn"}, "Did you mean 'kitchen'"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, **changes)


@pytest.mark.parametrize("budget", ["iterations", "env_steps"])
def test_any_one_budget_is_enough(tmp_path, budget):
    assert getattr(config(tmp_path, minutes=0.0, **{budget: 5}), budget) == 5
