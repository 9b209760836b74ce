"""Success tables: which seeds and tasks count, and how sure the rate is."""

import pytest

from z1_ros.errors import ConfigError, SeedError
from z1_ros.sim.evaluation import (
    EpisodeResult,
    mean_success,
    parse_seeds,
    success_table,
    wilson_interval,
)
from z1_ros.sim.kitchen import TASKS
from z1_ros.sim.registry import KITCHEN_TASKS, parse_task, parse_tasks


def result(task: str, success: bool, steps: int) -> EpisodeResult:
    return EpisodeResult(task=task, seed=1, instruction="do it", success=success, steps=steps)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(87, 100, 0.7902, 0.9224), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval_matches_published_values(successes, n, low, high) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_seeds_are_ranges_or_lists_and_for_evaluation_only() -> None:
    assert parse_seeds("10000:10003") == [10000, 10001, 10002]
    assert parse_seeds("10005,10001") == [10005, 10001]
    with pytest.raises(SeedError, match="for training"):
        parse_seeds("9999:10001")
    for bad in ("ten", "10005:10005", "1:2:3", ""):
        with pytest.raises(ConfigError, match="seeds"):
            parse_seeds(bad)


def test_tasks_are_names_or_all() -> None:
    known = ["OpenDrawer", "TurnOnMicrowave"]
    assert parse_tasks("all", known) == known
    assert parse_tasks("TurnOnMicrowave, OpenDrawer", known) == known[::-1]
    with pytest.raises(ConfigError, match="Did you mean 'OpenDrawer'"):
        parse_tasks("OpenDrawr", known)
    with pytest.raises(ConfigError, match="names no task"):
        parse_tasks(",", known)


@pytest.mark.parametrize("several", ["all", "OpenDrawer,TurnOnMicrowave", ","])
def test_one_task_is_one_name(several) -> None:
    assert parse_task(" OpenDrawer ", KITCHEN_TASKS) == "OpenDrawer"
    with pytest.raises(ConfigError, match="Did you mean 'OpenDrawer'"):
        parse_task("OpenDrawr", KITCHEN_TASKS)
    with pytest.raises(ConfigError, match=f"task is '{several}', expected one task. Known: Open"):
        parse_task(several, KITCHEN_TASKS)


def test_the_kitchens_tasks_can_be_named_without_it() -> None:
    assert tuple(TASKS) == KITCHEN_TASKS


def test_the_table_counts_per_task() -> None:
    results = [result("A", True, 50), result("A", False, 300), result("B", True, 70)]
    table = success_table(results)
    assert (table["A"]["success"], table["A"]["n"]) == (1, 2)
    assert (table["A"]["mean_steps"], table["A"]["mean_success_steps"]) == (175, 50)
    assert mean_success(table) == 0.75
