"""Reports of all benchmarks: measured rows and the machine, as a table and as JSON.

A row is one quantity of one subject, measured in several blocks. The blocks of compared subjects
alternate, so that other load on the machine affects both. Ratios are computed for each block.
"""

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from z1_ros.files import write_json

PACKAGES = ("numpy", "mujoco", "onnxruntime", "torch", "z1_ros")
DIGITS = 4
"""Number of significant digits in reports."""


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of one subject."""

    name: str
    """Subject, e.g. ``kitchen, 3 cameras``."""
    quantity: str
    """Measured quantity, e.g. ``control steps``."""
    unit: str
    """Unit of the quantity, e.g. ``1/s``."""
    values: Sequence[float]
    """Value of each block, in order."""
    baseline: str = ""
    """Subject with which this row is compared; empty: none. The ratio uses the same quantity."""
    floor: float | None = None
    """Lower limit for any implementation, in the same unit."""


def publish(
    command: str, config: Any, rows: Sequence[Row], facts: Mapping[str, Any], console: Console
) -> dict[str, Any]:
    """Print a benchmark's table, write its JSON file, and return the report.

    ``config`` is a dataclass; its field ``json`` is the file, None if there is none. The report
    also contains ``facts``, e.g. peak rates, hashes or sizes.
    """
    by_subject = {(row.name, row.quantity): row for row in rows}
    report = {
        "benchmark": command,
        "config": json.loads(json.dumps(asdict(config), default=str)),
        "machine": machine(),
        "facts": dict(facts),
        "rows": [_row_dict(row, by_subject.get((row.baseline, row.quantity))) for row in rows],
    }
    if config.json is not None:
        write_json(config.json, report)
    console.print(render(report))
    return report


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, min and max."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: _rounded(value) for name, value in found.items()}


def machine() -> dict[str, Any]:
    """Return facts about the machine: processor, cores, load and package versions."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "versions": versions,
    }


def render(report: Mapping[str, Any]) -> Table:
    """Return a report as a table for the terminal, with a section for each quantity."""
    here = report["machine"]
    table = Table(
        title=f"{report['benchmark']}: {here['cores']} cores of {here['cpu']}, load {here['load']}",
        caption="\n".join(f"{name}: {value}" for name, value in report["facts"].items()),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for title in ("", "median", "min … max", "compared"):
        table.add_column(title, justify="right" if title else "left")
    before = ""
    for row in report["rows"]:
        heading = f"{row['quantity']} [{row['unit']}]" if row["unit"] else row["quantity"]
        if heading != before:
            table.add_row(f"[bold]{escape(heading)}[/], n = {row['n']}")
            before = heading
        spread = _range(row) if row["min"] < row["max"] else ""
        table.add_row(f"  {row['name']}", f"{row['median']:.{DIGITS}g}", spread, _compared(row))
    return table


def _row_dict(row: Row, baseline: Row | None) -> dict[str, Any]:
    measured = summary(row.values)
    ratio = None
    if baseline is not None and all(baseline.values):
        pairs = zip(row.values, baseline.values, strict=True)
        ratio = summary([ours / theirs for ours, theirs in pairs])
    return {
        "name": row.name,
        "quantity": row.quantity,
        "unit": row.unit,
        "n": len(row.values),
        **measured,
        "values": [_rounded(value) for value in row.values],
        "baseline": row.baseline or None,
        "ratio": ratio,
        "floor": None if row.floor is None else _rounded(row.floor),
        "times_floor": None if row.floor is None else _rounded(measured["median"] / row.floor),
    }


def _compared(row: Mapping[str, Any]) -> str:
    parts = []
    if row["ratio"] is not None:
        ratio = row["ratio"]
        spread = f" ({_range(ratio, 3)})" if row["n"] > 1 else ""
        parts.append(f"{ratio['median']:.3g} × {row['baseline']}{spread}")
    if row["floor"] is not None:
        parts.append(f"{row['times_floor']:.3g} × floor {row['floor']:.3g}")
    return ", ".join(parts)


def _range(measured: Mapping[str, float], digits: int = DIGITS) -> str:
    return f"{measured['min']:.{digits}g} … {measured['max']:.{digits}g}"


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
