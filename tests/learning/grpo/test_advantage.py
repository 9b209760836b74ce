"""Advantages against the formulas, group by group."""

import numpy as np
import pytest

from z1_ros.errors import ConfigError
from z1_ros.learning.grpo.advantage import (
    EPSILON,
    alive_advantages,
    calibrated_returns,
    group_advantages,
)

SUCCESS = np.array([True, False, True, False])
CHUNKS = np.array([10, 50, 20, 50])


def test_binary_rewards_ignore_time():
    assert calibrated_returns(SUCCESS, CHUNKS, 0.9, "none").tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("calibration", ["decay", "penalty"])
def test_success_decays_with_its_chunks_and_failure_stays_zero(calibration):
    found = calibrated_returns(SUCCESS, CHUNKS, 0.998, calibration)
    np.testing.assert_allclose(found, [0.998**10, 0, 0.998**20, 0])


def test_mixed_groups_are_normalised_by_the_population():
    returns = np.array([1.0, 0, 0, 0, 0, 0, 0, 0])
    found = group_advantages(returns, returns > 0, "none")
    np.testing.assert_allclose(found, [7**0.5] + [-(7**-0.5)] * 7, rtol=1e-5)


@pytest.mark.parametrize("calibration", ["none", "decay", "penalty"])
def test_a_group_that_failed_throughout_teaches_nothing(calibration):
    found = group_advantages(np.zeros(4), np.zeros(4, bool), calibration)
    assert found.tolist() == [0, 0, 0, 0]


def test_a_group_that_succeeded_throughout_is_compared_with_its_slowest():
    success, chunks = np.ones(3, bool), np.array([10, 30, 20])
    returns = calibrated_returns(success, chunks, 0.998, "decay")
    found = group_advantages(returns, success, "decay")
    np.testing.assert_allclose(found, 0.998**chunks - 0.998**30)
    assert found[1] == 0 and (found >= 0).all()


def test_the_penalty_pushes_the_slower_successes_down():
    success, chunks = np.ones(3, bool), np.array([10, 30, 20])
    returns = calibrated_returns(success, chunks, 0.998, "penalty")
    found = group_advantages(returns, success, "penalty")
    np.testing.assert_allclose(found, (returns - returns.mean()) / (returns.std() + 1e-6))
    assert found[1] < 0 < found[0]


@pytest.mark.parametrize("calibration", ["decay", "penalty"])
def test_without_decay_a_group_that_succeeded_throughout_teaches_nothing(calibration):
    success = np.ones(4, bool)
    returns = calibrated_returns(success, np.array([3, 9, 5, 7]), 1.0, calibration)
    assert group_advantages(returns, success, calibration).tolist() == [0] * 4


@pytest.mark.parametrize("gamma", [0.0, 1.1, float("nan")])
def test_bad_decays_are_refused(gamma):
    with pytest.raises(ConfigError, match="gamma"):
        calibrated_returns(SUCCESS, CHUNKS, gamma, "decay")


def test_those_still_running_are_compared_with_each_other():
    """Two rollouts are done after 2 chunks; of the others, one succeeds late."""
    success, lengths = np.array([True, True, True, False]), np.array([2, 2, 4, 5])
    returns = calibrated_returns(success, lengths, 0.5, "decay")
    flat = group_advantages(returns, success, "decay")
    found = alive_advantages(flat, returns, success, lengths)
    wanted = np.zeros((4, 5))
    wanted[:, :2] = flat[:, None]
    wanted[2:, 2:4] = np.array([[1], [-1]]) / 32 / (returns.std() + EPSILON)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_one_that_runs_on_alone_is_not_blamed_for_it():
    success, lengths = np.array([True, True, False]), np.array([3, 3, 9])
    returns = calibrated_returns(success, lengths, 1.0, "none")
    flat = group_advantages(returns, success, "none")
    found = alive_advantages(flat, returns, success, lengths)
    np.testing.assert_allclose(found[:, :3], np.repeat(flat[:, None], 3, 1), rtol=1e-9)
    assert not found[:, 3:].any()


def test_groups_without_a_failure_keep_their_own_baseline():
    success, lengths = np.ones(2, bool), np.array([2, 4])
    returns = calibrated_returns(success, lengths, 0.9, "decay")
    flat = group_advantages(returns, success, "decay")
    found = alive_advantages(flat, returns, success, lengths)
    np.testing.assert_allclose(found, [[flat[0]] * 2 + [0] * 2, [0] * 4])
