"""The scripted experts do their tasks, also when they are disturbed."""

import numpy as np
import pytest

from z1_ros.sim.kitchen import TASKS, KitchenEnv, make_expert
from z1_ros.specs import PANDA_OMRON

ALL = sorted(TASKS)


def run_expert(env: KitchenEnv, noise: float = 0.0) -> bool:
    """Let the expert act; with noise, bursts of it disturb what is executed."""
    expert, rng, burst = make_expert(env), np.random.default_rng(0), 0
    while True:
        action = expert.act()
        assert np.abs(action).max() <= 1
        burst = burst - 1 if burst else 10 * int(rng.random() < 0.03)
        if burst:
            action[:6] += noise * rng.normal(0, 1, 6)
        step = env.step(action[None])
        if step.done:
            return step.success


@pytest.mark.parametrize("task", ALL)
def test_expert_succeeds(task):
    env = KitchenEnv(task)
    for seed in (1, 10_001):
        env.reset(seed)
        assert run_expert(env), f"seed {seed}"


def test_expert_works_with_the_mobile_embodiment():
    env = KitchenEnv("TurnOnMicrowave", PANDA_OMRON)
    env.reset(2)
    assert run_expert(env)


@pytest.mark.parametrize("task", ALL)
def test_expert_recovers_from_noise(task):
    env = KitchenEnv(task)
    won = []
    for seed in (2, 3, 4):
        env.reset(seed)
        won.append(run_expert(env, noise=0.3))
    assert sum(won) >= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", ALL)
def test_expert_reaches_95_percent_of_200_held_out_seeds(task):
    env = KitchenEnv(task)
    won = 0
    for seed in range(10_000, 10_200):
        env.reset(seed)
        won += run_expert(env)
    assert won >= 190
