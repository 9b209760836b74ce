"""Parts of a manifest, and what must hold of them."""

from dataclasses import replace

import pytest
from support.manifests import MANIFEST_VALUE, stats

from z1_ros.models.bundle.parts import (
    ImageSpec,
    Normalization,
    NormStats,
    require_commands,
    require_stats,
)
from z1_ros.specs import PANDA

CONTRACT = MANIFEST_VALUE.contract


def test_choices_are_checked_where_they_are_made() -> None:
    with pytest.raises(ValueError, match=r"image.resize is 'nearest'"):
        ImageSpec(resize="nearest")
    with pytest.raises(ValueError, match=r"Did you mean 'quantile'"):
        Normalization(mode="quantiles", state=stats(1), action=stats(1))


def test_the_mode_of_the_actions_is_the_states_unless_it_is_said() -> None:
    made = Normalization(state=stats(1), action=stats(1))
    assert made.mode_of_actions == "quantile"
    assert replace(made, action_mode="mean_std").mode_of_actions == "mean_std"


def test_constant_numbers_are_told_relative_to_their_size() -> None:
    found = NormStats(q01=(0.0, 1000.0, -1.0), q99=(1e-6, 1000.0005, 1.0))
    assert found.constant("quantile") == (True, True, False)
    found = NormStats(mean=(0.0, 1000.0), std=(0.0, 1e-2))
    assert found.constant("mean_std") == (True, False)


def test_statistics_must_leave_something_to_change() -> None:
    one = NormStats(q01=(1.0, 0.0), q99=(1.0, 1.0))
    require_stats("state", one, "quantile", ("a", "b"))
    with pytest.raises(ValueError, match=r"q99 is q01 in every dimension"):
        require_stats("state", replace(one, q99=one.q01), "quantile", ("a", "b"))
    with pytest.raises(ValueError, match=r"std is 0 in every dimension"):
        require_stats("s", NormStats(mean=(1.0,), std=(0.0,)), "mean_std", ("a",))
    require_stats("state", NormStats(), "quantile", ())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 9e18, 10**400, "1", None, True])
def test_a_number_that_no_robot_has_is_refused(value) -> None:
    with pytest.raises(ValueError, match=r"must be 1 numbers within ±1,000,000"):
        require_stats("state", NormStats(q01=(0.0,), q99=(value,)), "quantile", ("a",))


def test_statistics_far_beyond_the_robots_commands_are_refused() -> None:
    found = stats(7)
    require_commands(found, CONTRACT.action, PANDA.name)
    large = replace(found, q99=(1.0,) * 6 + (11.0,))
    with pytest.raises(ValueError, match=r"q99 of gripper_close.close is 11, .* within ±1$"):
        require_commands(large, CONTRACT.action, PANDA.name)
    require_commands(large, CONTRACT.action, "a robot of somebody else")
