"""Whether statistics can be those of the fields that their columns are said to be.

A wrong flat order loads, runs and moves the robot, but its statistics show that it is wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from z1_ros.models.importing.norm_stats import Parts
from z1_ros.specs import Embodiment, Field

SLACK = 0.05
"""How far statistics may be beyond what a number can be."""
BOUNDS = {
    "end_effector_position_relative.x": 1.5,
    "end_effector_position_relative.y": 1.5,
    "end_effector_position_relative.z": 1.5,
    "base_rotation.x": 0.1,
    "base_rotation.y": 0.1,
}
"""Largest magnitude of some numbers: an arm's reach [m]; a standing base turns about z only."""


@dataclass(frozen=True, slots=True)
class Column:
    """Statistics of one number."""

    name: str
    """``field.dim``."""
    unit: str
    """Its unit."""
    at: int
    """Flat index."""
    stats: Mapping[str, float]
    """Statistic -> value."""

    @property
    def range(self) -> tuple[float, float] | None:
        """Usual range, or None where the statistics have none."""
        for low, high in (("q01", "q99"), ("min", "max"), ("q10", "q90")):
            if low in self.stats and high in self.stats:
                return self.stats[low], self.stats[high]
        return None

    def __str__(self) -> str:
        """Name, place and range."""
        known = self.range or (self.stats.get("mean", np.nan),) * 2
        spread = f", standard deviation {self.stats['std']:.3g}" if "std" in self.stats else ""
        return f"column {self.at} ({self.name}) has {known[0]:.3g} … {known[1]:.3g}{spread}"


def list_columns(fields: Sequence[Field], parts: Parts) -> Iterator[Column]:
    """Yield the columns of fields, in flat order; statistics that are not finite are left out."""
    at = 0
    for field in fields:
        for name in field.dim_names:
            known = {p: float(values[at]) for p, values in parts.items() if np.isfinite(values[at])}
            yield Column(name, field.unit, at, known)
            at += 1


def find_suspicious(
    fields: Mapping[str, Sequence[Field]], parts: Mapping[str, Parts], robot: Embodiment
) -> list[str]:
    """Return a sentence for each column whose statistics cannot be those of its field.

    Args:
        fields: ``state`` and ``action`` -> fields in the checkpoint's order.
        parts: ``state`` and ``action`` -> statistics, cut to the fields' size.
        robot: Gives the limits of the actions.
    """
    limits = {field.name: (field.low, field.high) for field in robot.action}
    found = []
    for column in list_columns(fields.get("state", ()), parts.get("state", {})):
        bound = BOUNDS.get(column.name, 1.0 if column.unit == "quaternion" else np.inf)
        if not _within(column, -bound, bound):
            found.append(f"{column}, expected within ±{bound:g}")
    for column in list_columns(fields["action"], parts["action"]):
        if column.unit == "sign":
            if column.stats and switch_values(column) is None:
                found.append(f"{column}, expected a switch between -1 and 1, or 0 and 1")
            continue
        low, high = limits[column.name.partition(".")[0]]
        if not _within(column, low, high):
            found.append(f"{column}, expected within {low:g} … {high:g}")
    return found


def _within(column: Column, low: float, high: float) -> bool:
    values = column.range or tuple(column.stats[p] for p in ("mean",) if p in column.stats)
    return all(low - SLACK <= value <= high + SLACK for value in values)


def switch_values(column: Column) -> tuple[float, float] | None:
    """Return the two values, (-1, 1) or (0, 1), between which a column switches, or None.

    The variance of a switch follows from its mean, which tells it from a continuous column of
    the same range, and one pair of values from the other where the range does not.
    """
    best, best_error = None, np.inf
    for off in (-1.0, 0.0):
        if not _within(column, off, 1.0):
            continue
        error = 0.0
        if {"mean", "std"} <= set(column.stats):
            mean, variance = column.stats["mean"], column.stats["std"] ** 2
            expected = (1 - mean) * (mean - off)
            error = abs(variance - expected)
            if error > 0.2 * expected + 1e-4:
                continue
        elif column.range and column.range[0] < off + SLACK:
            error = -1.0  # the range reaches the lower value
        if error < best_error:
            best, best_error = (off, 1.0), error
    return best


def switches_from_zero(fields: Sequence[Field], parts: Parts) -> list[Column]:
    """Return the columns that switch between 0 and 1; the robots' commands are -1 and 1."""
    return [
        column
        for column in list_columns(fields, parts)
        if column.unit == "sign" and switch_values(column) == (0.0, 1.0)
    ]


def rescale(parts: Parts, columns: Sequence[Column]) -> dict[str, np.ndarray]:
    """Map columns between 0 and 1 to -1 and 1 by their statistics alone.

    What the network gives is the same, what it stands for is 2 x - 1; a threshold that was at
    0.5 is at 0.
    """
    rescaled = {part: np.array(values) for part, values in parts.items()}
    for column in columns:
        for part, values in rescaled.items():
            values[column.at] = 2 * values[column.at] - (0 if part == "std" else 1)
    return rescaled
