"""``z1-ablate``: effect of each part of Z-1, at equal numbers of control steps.

Each cell is one run of the loop of z1-train in its own folder. An ablation that was killed
continues where it stopped; finished cells are not run again. Cells run in this process, with
separate environment workers. A cell whose policy diverges is reported like the others.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from rich.console import Console

from z1_ros.errors import ConfigError, Diverged
from z1_ros.files import read_json, write_json, write_text
from z1_ros.learning.analysis.curves import Curve, draw
from z1_ros.learning.core.checkpoint import refuse_other_settings
from z1_ros.learning.core.run_config import VALIDATION_SEED
from z1_ros.learning.core.run_log import Point, Run, read_run
from z1_ros.learning.grpo.advantage import Calibration
from z1_ros.learning.grpo.config import Z1Config
from z1_ros.learning.grpo.train import GrpoTraining, fingerprint
from z1_ros.learning.rollout.env_pool import OpenPool, local_workers
from z1_ros.learning.rollout.plan import Sharing
from z1_ros.learning.rollout.session import evaluate_last
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.runtime.lock import locked
from z1_ros.sim.registry import EnvMaker, find_simulator, parse_task

Factor = Literal["sharing", "calibration", "trained"]
FACTORS: dict[str, tuple[str, ...]] = {
    "sharing": get_args(Sharing),
    "calibration": get_args(Calibration),
    "trained": ("expert", "joint"),
}
"""Factors that can be varied, and their values."""
NAMES = {
    "sharing": "what a group shares",
    "calibration": "calibration of rewards",
    "trained": "what is trained",
}
DONE = "cell.json"
REACH = 0.10
"""Default increase of the success rate whose cost in control steps is compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AblateConfig(Z1Config):
    """Train with parts of Z-1 changed one at a time; all other flags are z1-train's."""

    out: Path
    """Folder of the runs, table.md, table.json and curves.svg."""
    factors: tuple[Factor, ...] = get_args(Factor)
    """Factors to vary, one at a time. The other factors keep the values of their flags."""
    full: bool = False
    """Run all combinations of values instead of one change at a time."""
    seeds: tuple[int, ...] = (0, 1)
    """Training seeds; every setting is trained once with each of them."""
    env_steps: int = 300_000
    """Control steps of training, the budget of each run."""
    reach: float = 0.0
    """Success rate to reach: the table shows the number of control steps until then. 0: ten points
    above the initial success rate."""
    through: tyro.conf.Suppress[Literal["inproc", "ros"]] = "inproc"
    minutes: tyro.conf.Suppress[float] = 0.0
    iterations: tyro.conf.Suppress[int] = 0
    keep: tyro.conf.Suppress[Literal["best", "last"]] = "best"
    export: tyro.conf.Suppress[bool] = False
    seed: tyro.conf.Suppress[int] = 0
    json: tyro.conf.Suppress[Path | None] = None

    def __post_init__(self) -> None:
        Z1Config.__post_init__(self)
        if not self.factors or not self.seeds:
            raise ConfigError("factors and seeds must name at least one each")
        if self.env_steps < 1 or not 0 <= self.reach <= 1:
            raise ConfigError("env_steps must be at least 1, reach a rate from 0 to 1")


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting, the value of every factor, with one training seed."""

    setting: dict[str, str]
    seed: int

    @property
    def label(self) -> str:
        """Text of the setting."""
        return ", ".join(self.setting.values())

    @property
    def folder(self) -> str:
        """Name of the cell's run folder."""
        return "-".join((*self.setting.values(), f"seed{self.seed}"))


def cells_of(config: AblateConfig) -> list[Cell]:
    """Return all cells, the unchanged setting first."""
    base = {name: getattr(config.grpo, name) for name in FACTORS}
    settings = [base]
    if config.full:
        values = [FACTORS[name] for name in config.factors]
        settings += [base | dict(zip(config.factors, v, strict=True)) for v in product(*values)]
    else:
        settings += [base | {name: v} for name in config.factors for v in FACTORS[name]]
    unique = [s for i, s in enumerate(settings) if s not in settings[:i]]
    return [Cell(setting, seed) for seed in config.seeds for setting in unique]


def main(config: AblateConfig, open_pool: OpenPool = local_workers) -> list[dict[str, Any]]:
    """Run the unfinished cells, write table and plot, and return the table's rows."""
    console = Console()
    cells = cells_of(config)
    with locked(config.out):
        # Make all settings first: an invalid setting is refused before hours of training.
        settings = [cell_config(config, cell) for cell in cells]
        for number, cell in enumerate(cells):
            console.rule(f"{number + 1}/{len(cells)}: {cell.label}, seed {cell.seed}")
            run_cell(settings[number], config.out / cell.folder, open_pool)
            # Write after each cell, so that results can be read while a long ablation runs.
            rows = write_results(config, cells[: number + 1])
    console.print((config.out / "table.md").read_text("utf-8"), markup=False)
    return rows


def cell_config(config: AblateConfig, cell: Cell) -> Z1Config:
    """Return z1-train's settings of a cell."""
    own = {f.name: getattr(config, f.name) for f in fields(Z1Config)}
    setting: dict[str, Any] = cell.setting
    grpo = replace(config.grpo, **setting)
    task = parse_task(config.task, find_simulator(config.robot).tasks)
    return Z1Config(**(own | {"grpo": grpo, "seed": cell.seed, "task": task}))


def run_cell(config: Z1Config, folder: Path, open_pool: OpenPool) -> None:
    """Train until the budget is used up or the policy diverges; then evaluate the policy.

    Raises TrainingError if the folder contains a run with other settings.
    """
    bundle = load_bundle(config.bundle)
    made_with = {"env_steps": config.env_steps, "settings": fingerprint(config, bundle)}
    made_with = json.loads(json.dumps(made_with))
    if (folder / DONE).exists():
        refuse_other_settings(folder / DONE, read_json(folder / DONE)["made_with"], made_with)
        return
    folder.mkdir(parents=True, exist_ok=True)
    maker = EnvMaker(
        simulator=config.robot, task=config.task, embodiment=bundle.manifest.embodiment
    )
    status = "done"
    with open_pool(maker, config.workers) as pool:
        training = GrpoTraining(config, bundle, pool, folder)
        training.run.start("z1-ablate", bundle.manifest.name)
        try:
            training.train()
            evaluate_last(training.run, training.collector, training.sampler)
        except Diverged:
            status = "diverged"  # the weights may not be finite, so they are not evaluated
    write_json(folder / DONE, {"status": status, "made_with": made_with})


def write_results(config: AblateConfig, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Write table.md, table.json and curves.svg of finished cells; return the rows."""
    runs = {cell.folder: read_run(config.out / cell.folder) for cell in cells}
    before = [run.evaluations[0].success for run in runs.values()]
    target = config.reach or min(1.0, sum(before) / len(before) + REACH)
    rows = [row_of(cell, runs[cell.folder], target, config.out / cell.folder) for cell in cells]
    table = {"task": config.task, "budget": config.env_steps, "reach": target, "cells": rows}
    write_json(config.out / "table.json", table)
    write_text(config.out / "table.md", markdown(table))
    base = {name: getattr(config.grpo, name) for name in FACTORS}
    panels = {}
    for factor in config.factors:
        others = {name: value for name, value in base.items() if name != factor}
        shown = [cell for cell in cells if others.items() <= cell.setting.items()]
        panels[f"{config.task}: {NAMES[factor]}"] = [
            Curve(cell.setting[factor], runs[cell.folder]) for cell in shown
        ]
    draw(panels, ("env_steps",), config.out / "curves.svg")
    return rows


def row_of(cell: Cell, run: Run, target: float, folder: Path) -> dict[str, Any]:
    """Return the metrics of one finished cell."""
    points = run.evaluations
    trained = [record for record in run.records if "train_success" in record]
    reached = [p.env_steps for p in points if p.success >= target]
    return {
        **cell.setting,
        "seed": cell.seed,
        "status": read_json(folder / DONE)["status"],
        "iterations": len(trained),
        "env_steps": run.records[-1]["env_steps"],
        "minutes": round(run.records[-1]["elapsed_s"] / 60, 1),
        "before": _success(points[0]),
        "after": _success(points[-1]),
        "best": _success(max(points, key=lambda p: p.success)),
        "env_steps_to_reach": reached[0] if reached else None,
        "group_filter_rate": round(
            sum(r["group_filter_rate"] for r in trained) / max(len(trained), 1), 3
        ),
    }


def _success(point: Point) -> dict[str, Any]:
    low, high = point.interval
    return {"success": point.success, "n": point.n, "ci95": [round(low, 4), round(high, 4)]}


def markdown(table: dict[str, Any]) -> str:
    """Return the table as Markdown, one row for each cell."""
    heads = (
        *FACTORS,
        "seed",
        "control steps",
        "before",
        "after",
        "best",
        f"control steps to {100 * table['reach']:.0f} %",
        "groups filtered out",
        "time",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in table["cells"]:
        reached = row["env_steps_to_reach"]
        diverged_at = "" if row["status"] == "done" else f" ({row['status']})"
        cells = (
            *(row[name] for name in FACTORS),
            str(row["seed"]),
            f"{row['env_steps'] / 1e3:.0f} k{diverged_at}",
            *(_rate(row[name]) for name in ("before", "after", "best")),
            "not reached" if reached is None else f"{reached / 1e3:.0f} k",
            f"{100 * row['group_filter_rate']:.0f} %",
            f"{row['minutes']:.0f} min",
        )
        lines.append(f"| {' | '.join(cells)} |")
    n = table["cells"][0]["after"]["n"]
    lines += [
        "",
        f"{table['task']}, {table['budget'] / 1e3:.0f} k control steps of training for each run. "
        f"Success of the policy without noise, the same {n} scenes from seed {VALIDATION_SEED} on "
        "for all, with 95 % Wilson intervals. `best` was chosen among the run's own evaluations, "
        "so it flatters; compare `after`, which of a run that diverged is the last before it did.",
    ]
    return "\n".join(lines) + "\n"


def _rate(measured: dict[str, Any]) -> str:
    low, high = measured["ci95"]
    return f"{100 * measured['success']:.1f} % ({100 * low:.0f} … {100 * high:.0f})"
