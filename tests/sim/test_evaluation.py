"""Success tables: which seeds count, and how sure a rate is."""

import pytest

from z1_ros.errors import ConfigError, SeedError
from z1_ros.sim.episodes import EpisodeResult
from z1_ros.sim.evaluation import (
    mean_success,
    parse_seeds,
    success_summary,
    success_table,
    wilson_interval,
)


def result(task: str, success: bool, steps: int) -> EpisodeResult:
    return EpisodeResult(task=task, seed=1, instruction="do it", success=success, steps=steps)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(87, 100, 0.7902, 0.9224), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval_matches_published_values(successes, n, low, high) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_a_summary_counts_and_says_how_sure_it_is() -> None:
    summary = success_summary([True] * 87 + [False] * 13)
    assert summary == {"success": 87, "n": 100, "ci95": [0.7902, 0.9224]}
    assert success_summary([]) == {"success": 0, "n": 0, "ci95": [0.0, 1.0]}


def test_seeds_are_ranges_or_lists_and_for_evaluation_only() -> None:
    assert parse_seeds("10000:10003") == [10000, 10001, 10002]
    assert parse_seeds("10005,10001") == [10005, 10001]
    for training in ("9999:10001", "10005,3", "-5:10001", "-1"):
        with pytest.raises(SeedError, match=r"for training|negative"):
            parse_seeds(training)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ten", "must look like"),
        ("", "must look like"),
        ("1:2:3", "must look like"),
        ("10000:nan", "must look like"),
        ("9" * 5000, "must look like"),
        ("10005:10005", "names no scene"),
        ("10100:10000", "names no scene"),
        ("10000:99999999999", "at most 100000 scenes"),
        (f"10000:{10**40}", "at most 100000 scenes"),
        (f"10000,{2**31}", "no seed above"),
        ("10000,10001,10000", "names a seed twice"),
    ],
)
def test_absurd_seeds_are_one_short_sentence(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        parse_seeds(text)
    assert len(str(error.value)) < 160


def test_the_table_counts_per_task() -> None:
    results = [result("A", True, 50), result("A", False, 300), result("B", True, 70)]
    table = success_table(results)
    assert (table["A"]["success"], table["A"]["n"]) == (1, 2)
    assert (table["A"]["mean_steps"], table["A"]["mean_success_steps"]) == (175, 50)
    assert table["B"]["ci95"] == success_summary([True])["ci95"]
    assert mean_success(table) == 0.75
