"""Settings of the kitchen are checked when they are made."""

import pytest

from z1_ros.errors import ConfigError
from z1_ros.sim.kitchen import KitchenConfig


@pytest.mark.parametrize(
    "bad",
    [
        {"image_size": 4},
        {"image_size": 4096},
        {"randomisation": -1.0},
        {"randomisation": float("nan")},
        {"base_range_m": float("inf")},
        {"horizon": -1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        KitchenConfig(**bad)
