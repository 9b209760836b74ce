"""``z1-curves``: plots of learning curves of runs of ``z1-train`` and ``z1-teach``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from z1_ros.errors import ConfigError, closest
from z1_ros.files import staged_file
from z1_ros.learning.core.run_log import Point, Run, read_run

AXES = {
    "iterations": ("iterations", 1.0),
    "minutes": ("training time [min]", 1.0),
    "env_steps": ("control steps of training [thousands]", 1e-3),
}
"""Horizontal axes, by name: label and scale factor."""
FORMATS = (".png", ".svg", ".pdf")
# Colours of Okabe and Ito, distinct for colour-blind readers; markers are distinct in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LINES = ("-", "--", ":", "-.")
CROWDED = 4
"""Number of curves in a panel from which training rollouts are not drawn."""
COLUMNS = {1: 1, 2: 2, 4: 2}
"""Number of columns for a number of panels; 3 for all other numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvesConfig:
    """Draw the success of runs of z1-train or z1-teach, one panel for each task."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders; runs of one task share a panel."""
    out: Path = Path("curves.png")
    """Picture to write: .png, .svg or .pdf."""
    against: tuple[Literal["iterations", "minutes", "env_steps"], ...] = ("iterations", "minutes")
    """Horizontal axes; each gets a column of panels."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("name at least one run folder")
        if self.out.suffix not in FORMATS:
            raise ConfigError(f"{self.out} must end in one of {', '.join(FORMATS)}")
        if not self.against:
            raise ConfigError(f"against names nothing. {closest('', AXES)}")


@dataclass(frozen=True, slots=True)
class Curve:
    """A run with its label in the legend; curves with the same label share a colour."""

    label: str
    run: Run


def main(config: CurvesConfig) -> None:
    """Read the runs and draw their curves."""
    panels: dict[str, list[Curve]] = {}
    for folder in config.runs:
        run = read_run(folder)
        panels.setdefault(run.task, []).append(Curve(run.name, run))
    draw(panels, config.against, config.out)


def draw(panels: Mapping[str, Sequence[Curve]], against: Sequence[str], out: Path) -> None:
    """Draw panels of curves, by title, and write the picture atomically.

    Each panel has one row, with a column for each horizontal axis ``against``, a name from
    ``AXES``; if there is only one axis, several panels share a row.
    """
    cells = [(title, curves, x) for title, curves in panels.items() for x in against]
    columns = len(against) if len(against) > 1 else COLUMNS.get(len(cells), 3)
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(0.6 + 4.6 * columns, 0.7 + 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    training = all(len(curves) < CROWDED for curves in panels.values())
    for axes in grid.flat[len(cells) :]:
        axes.set_visible(False)
    for i, (axes, (title, curves, x)) in enumerate(zip(grid.flat, cells, strict=False)):
        _panel(axes, title, curves, x, training)
        if i % columns == 0:
            axes.set_ylabel("success [%]")
        if len(against) == 1 or i % columns == 0:
            axes.legend(loc="best", fontsize="small", framealpha=0.85, edgecolor="none")
    figure.supxlabel(_caption(panels, training), fontsize="small", color="0.35")
    # Text in an SVG stays text, so the file is small and searchable.
    with staged_file(out) as partial, rc_context({"svg.fonttype": "none"}):
        figure.savefig(partial, format=out.suffix[1:], dpi=150)


def _panel(axes: Axes, title: str, curves: Sequence[Curve], x: str, training: bool) -> None:
    labels = list(dict.fromkeys(curve.label for curve in curves))
    seen = dict.fromkeys(labels, 0)
    for curve in curves:
        number = labels.index(curve.label)
        colour = COLOURS[number % len(COLOURS)]
        twin = seen[curve.label]
        seen[curve.label] += 1
        if training:
            at, success = _line(curve.run.training, x)
            axes.plot(at, success, color=colour, alpha=0.25, linewidth=0.8)
        points = curve.run.evaluations
        at, success = _line(points, x)
        low, high = ([100 * p.interval[side] for p in points] for side in (0, 1))
        axes.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(
            at,
            success,
            color=colour,
            linestyle=LINES[twin % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=None if twin else curve.label,
        )
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_xlabel(AXES[x][0])
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _line(points: Sequence[Point], x: str) -> tuple[list[float], list[float]]:
    unit = AXES[x][1]
    return [getattr(p, x) * unit for p in points], [100 * p.success for p in points]


def _caption(panels: Mapping[str, Sequence[Curve]], training: bool) -> str:
    counts = sorted({p.n for group in panels.values() for c in group for p in c.run.evaluations})
    episodes = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    said = [
        f"policy as deployed, n = {episodes} scenes not trained on, band: 95 % Wilson interval",
        *(["faint: training rollouts"] if training else []),
    ]
    if any(len({c.label for c in group}) < len(group) for group in panels.values()):
        said.append("line style: training seed")
    return "; ".join(said)
