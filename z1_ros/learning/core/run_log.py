"""What a run of ``z1-train`` or ``z1-teach`` wrote into its folder, read back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.learning.core.train_state import CHECKPOINT, LOG
from z1_ros.models.bundle.manifest import require_replaceable
from z1_ros.models.checkpoint.loading import read_facts
from z1_ros.sim.evaluation import wilson_interval


def run_folder(run: Path | None, out: Path) -> Path:
    """Return a new or old folder for checkpoints and logs: ``run``, or one beside ``out``.

    Args:
        run: What the user asked for, if anything.
        out: Bundle that the run will write; it is replaced as a whole.

    Raises:
        ConfigError: ``out`` holds something that is no bundle, or the folder lies in it, or is a
            file.
    """
    out = out.expanduser().absolute()
    require_replaceable(out)
    folder = run or out.with_name(f"{out.name}-run")
    if folder.absolute().is_relative_to(out):
        raise ConfigError(f"the run's folder {folder} would be replaced with the bundle {out}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be the run's folder: {error.strerror}") from error
    return folder


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of success, and what training had cost until then."""

    iterations: int
    """Iterations done."""
    minutes: float
    """Time spent [min]."""
    env_steps: float
    """Control steps of training."""
    success: float
    """Rate."""
    n: int
    """Episodes; 1 where it is a mean of training rollouts."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval."""
        return wilson_interval(round(self.success * self.n), self.n)


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder, read."""

    name: str
    """Of the folder."""
    task: str
    """What was trained on."""
    records: Sequence[dict[str, Any]]
    """One for each iteration, in order."""

    @property
    def evaluations(self) -> list[Point]:
        """Measurements without noise; each was made before the iteration that it is logged with."""
        return [
            _point(record, before, record["eval_success"], int(record["eval_n"]))
            for before, record in zip([{}, *self.records], self.records, strict=False)
            if "eval_success" in record
        ]

    @property
    def training(self) -> list[Point]:
        """Success of the rollouts that were trained on, with noise."""
        return [
            _point(record, record, record["train_success"], 1)
            for record in self.records
            if "train_success" in record
        ]


def _point(record: dict[str, Any], cost: dict[str, Any], success: float, n: int) -> Point:
    return Point(
        iterations=int(record["iteration"]),
        minutes=cost.get("elapsed_s", 0.0) / 60,
        env_steps=cost.get("env_steps", 0.0),
        success=success,
        n=n,
    )


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return a run's log, one record for each iteration, in order; empty if there is none.

    A line that a killed process left unfinished is passed over, and of an iteration that was
    repeated after it the last counts.
    """
    path = folder / LOG
    found: dict[int, dict[str, Any]] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
            found[int(record["iteration"])] = record
        except (ValueError, KeyError, TypeError):
            continue
    return [found[i] for i in sorted(found)]


def read_run(folder: Path) -> Run:
    """Read a run's log and what it was.

    Raises:
        TrainingError: The folder holds no log, or one without an evaluation.
        CheckpointError: Its checkpoint is unreadable.
    """
    path = folder / LOG
    if not path.is_file():
        raise TrainingError(f"{folder} is no run of z1-train or z1-teach: it holds no {LOG}")
    records = read_records(folder)
    measured = [record for record in records if "eval_success" in record]
    if not measured:
        raise TrainingError(f"{path} holds no evaluation yet")
    for record in measured:
        if "eval_n" not in record:
            raise TrainingError(
                f"{path}: iteration {record['iteration']:.0f} has an eval_success but no eval_n"
            )
    checkpoint = folder / CHECKPOINT
    facts: dict[str, Any] = read_facts(checkpoint) if checkpoint.exists() else {}
    task = facts.get("identity", {}).get("task", folder.name)
    return Run(name=folder.name, task=task, records=records)
