"""Checks whether statistics are plausible for the fields that their columns are assigned to.

A bundle with a wrong flat order loads and moves the robot; only its statistics show the error.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from z1_ros.models.importing.norm_stats import Parts
from z1_ros.specs import Embodiment, Field

SLACK = 0.05
"""Tolerance by which statistics may exceed the possible range of a number."""
BOUNDS = {
    **{f"end_effector_position_relative.{axis}": 1.5 for axis in "xyz"},
    **{f"base_rotation.{axis}": 0.1 for axis in "xy"},
}
"""Largest magnitude of some numbers: an arm's reach [m]; a base on the floor turns only about z."""


class Column(NamedTuple):
    """Statistics of one number."""

    name: str
    """``field.dim``."""
    unit: str
    at: int
    """Index in the flat vector."""
    stats: Mapping[str, float]
    """Statistic -> value."""

    @property
    def range(self) -> tuple[float, float] | None:
        """Usual range, or None if the statistics do not contain one."""
        for low, high in (("q01", "q99"), ("min", "max"), ("q10", "q90")):
            if low in self.stats and high in self.stats:
                return self.stats[low], self.stats[high]
        return None

    def within(self, low: float, high: float) -> bool:
        """Return whether the range, or else the mean, is within limits."""
        values = self.range or tuple(self.stats[p] for p in ("mean",) if p in self.stats)
        return all(low - SLACK <= value <= high + SLACK for value in values)

    def __str__(self) -> str:
        known = self.range or (self.stats.get("mean", np.nan),) * 2
        spread = f", standard deviation {self.stats['std']:.3g}" if "std" in self.stats else ""
        return f"column {self.at} ({self.name}) has {known[0]:.3g} … {known[1]:.3g}{spread}"


def list_columns(fields: Sequence[Field], parts: Parts) -> Iterator[Column]:
    """Yield the columns of fields in flat order, without statistics that are not finite."""
    names = [(name, field.unit) for field in fields for name in field.dim_names]
    for at, (name, unit) in enumerate(names):
        known = {p: float(values[at]) for p, values in parts.items() if np.isfinite(values[at])}
        yield Column(name, unit, at, known)


def find_suspicious(
    fields: Mapping[str, Sequence[Field]], parts: Mapping[str, Parts], robot: Embodiment
) -> list[str]:
    """Return a sentence for each column whose statistics are impossible for its field."""
    limits = {field.name: (field.low, field.high) for field in robot.action}
    found = []
    for column in list_columns(fields.get("state", ()), parts.get("state", {})):
        bound = BOUNDS.get(column.name, 1.0 if column.unit == "quaternion" else np.inf)
        if not column.within(-bound, bound):
            found.append(f"{column}, expected within ±{bound:g}")
    for column in list_columns(fields["action"], parts["action"]):
        low, high = limits[column.name.partition(".")[0]]
        if column.unit == "sign":
            if column.stats and switch_values(column) is None:
                found.append(f"{column}, expected a switch between -1 and 1, or 0 and 1")
        elif not column.within(low, high):
            found.append(f"{column}, expected within {low:g} … {high:g}")
    return found


def switch_values(column: Column) -> tuple[float, float] | None:
    """Return the two values, (-1, 1) or (0, 1), between which a column switches, or None.

    The mean of a switch determines its variance. This distinguishes a switch from a continuous
    column of the same range, and the two pairs of values if their range is the same.
    """
    best, best_error = None, np.inf
    for off in (-1.0, 0.0):
        if not column.within(off, 1.0):
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
    """Return statistics that map columns from the range 0 to 1 to the range -1 to 1.

    The network's output x does not change, but its unnormalised value becomes 2 x - 1; a threshold
    of 0.5 becomes 0.
    """
    rescaled = {part: np.array(values) for part, values in parts.items()}
    for column in columns:
        for part, values in rescaled.items():
            values[column.at] = 2 * values[column.at] - (0 if part == "std" else 1)
    return rescaled
