"""Scenes of an evaluation, and success rates with confidence intervals."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.sim.episodes import EpisodeResult
from z1_ros.specs import require_seed

MAX_SEED = 2**31 - 1
"""Largest scene seed: some messages have 32-bit fields."""
MAX_SEEDS = 100_000
"""Maximum number of scenes of one evaluation."""


def wilson_interval(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    centre = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)


def success_summary(successes: Iterable[bool]) -> dict[str, Any]:
    """Return ``{"success": count, "n": episodes, "ci95": [low, high]}``, with Wilson's interval."""
    outcomes = [bool(success) for success in successes]
    count, n = sum(outcomes), len(outcomes)
    interval = [round(bound, 4) for bound in wilson_interval(count, n)]
    return {"success": count, "n": n, "ci95": interval}


def success_table(results: Iterable[EpisodeResult]) -> dict[str, dict[str, Any]]:
    """Return for each task the success summary, the mean numbers of steps and the instructions."""
    by_task: dict[str, list[EpisodeResult]] = {}
    for result in results:
        by_task.setdefault(result.task, []).append(result)
    return {task: _task_row(episodes) for task, episodes in by_task.items()}


def _task_row(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    won = [e.steps for e in episodes if e.success]
    return {
        **success_summary(e.success for e in episodes),
        "mean_steps": round(float(np.mean([e.steps for e in episodes])), 1),
        "mean_success_steps": round(float(np.mean(won)), 1) if won else None,
        "instructions": sorted({e.instruction for e in episodes}),
    }


def mean_success(table: dict[str, dict[str, Any]]) -> float:
    """Return the mean of the tasks' success rates."""
    return float(np.mean([row["success"] / row["n"] for row in table.values()]))


def parse_seeds(text: str) -> list[int]:
    """Parse evaluation seeds such as ``10000:10100`` (end excluded) or ``10000,10007``.

    Raises:
        ConfigError: The text is malformed or empty, or it has too many, too large or repeated
            seeds.
        SeedError: A seed is below 10000, which is for training.
    """
    given = f"seeds {text if len(text) <= 60 else text[:57] + '...'!r}"
    try:
        if ":" in text:
            first, end = (int(part) for part in text.split(":"))
            seeds: Sequence[int] = range(first, end)
        else:
            seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{given} must look like 10000:10100 or 10000,10007") from error
    if not seeds:
        raise ConfigError(f"{given} names no scene: the end must be larger than the first seed")
    # For a range, check only its ends: it may be extremely long.
    ends = (seeds[0], seeds[-1]) if isinstance(seeds, range) else seeds
    require_seed(min(ends), "eval")
    if max(ends) > MAX_SEED or len(seeds) > MAX_SEEDS:
        raise ConfigError(
            f"{given} is too much: at most {MAX_SEEDS} scenes, and no seed above {MAX_SEED}"
        )
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{given} names a seed twice")
    return list(seeds)
