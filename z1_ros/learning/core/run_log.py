"""The folder and the log of a training run; the analysis commands read the log."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.models.bundle.manifest import require_replaceable
from z1_ros.models.checkpoint.loading import read_facts
from z1_ros.sim.evaluation import wilson_interval

CHECKPOINT, LOG, TENSORBOARD = "checkpoint.safetensors", "log.jsonl", "tensorboard"
SHOWN = (
    "eval_success",
    "train_success",
    "teacher_success",
    "teacher_recovery_success",
    "teacher_train_success",
    "group_filter_rate",
    "chunks_to_success",
    "kl_update",
    "flow_loss",
    "dagger_samples",
    "rollout_s",
    "update_s",
)
"""Metrics that are printed to the terminal; the log contains all metrics."""


def run_folder(out: Path, run: Path | None = None) -> Path:
    """Return the folder for checkpoints and logs; create it if it does not exist.

    It is ``run``, or ``<out>-run`` for the bundle ``out`` that the run will write. Raises
    ConfigError if ``out`` contains something else, or the folder is inside ``out`` or is a file.
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


class RunLog:
    """Writes a run's metrics to its log, to the terminal, and to TensorBoard if installed."""

    def __init__(self, folder: Path, board: Any = None):
        """Set up for a run's folder and a TensorBoard writer, if any; no file is opened yet."""
        self._path = folder / LOG
        self._console = Console(soft_wrap=True)
        self.board = board

    def say(self, text: str) -> None:
        """Print a line immediately."""
        self._console.print(text, markup=False, highlight=False)

    def progress(self, reached: float) -> str:
        """Return how success changed since the first evaluation; empty if there is no second."""
        rates = [r for r in read_records(self._path.parent) if "eval_success" in r]
        if len(rates) < 2:
            return ""
        first, n = rates[0]["eval_success"], rates[-1]["eval_n"]
        return f"success {100 * first:.0f} → {100 * reached:.0f} % (n = {n:.0f}); "

    def write(self, record: dict[str, Any], remaining: str = "") -> None:
        """Log the metrics of an iteration and print the most important ones.

        Metrics are numbers or lists; numbers that are not finite are left out.
        """
        record = {k: v for k, v in record.items() if isinstance(v, list) or math.isfinite(v)}
        self.append(record, record["iteration"])
        parts = [f"{k} {record[k]:.4g}" for k in SHOWN if k in record]
        self.say("  ".join([f"iteration {record['iteration']:.0f}", *parts, remaining]).rstrip())

    def append(self, record: dict[str, Any], step: int) -> None:
        """Append a record to the log, and its numbers to TensorBoard at ``step``."""
        if self.board is not None:
            for name, value in record.items():
                if not isinstance(value, list):
                    self.board.add_scalar(name, value, step)
        with self._path.open("a+b") as log:
            # A killed process may have left an incomplete last line.
            torn = log.tell() and not self._path.read_bytes().endswith(b"\n")
            log.write(b"\n" * bool(torn) + json.dumps(record).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Point:
    """One success rate, and the completed iterations, time and control steps of training before."""

    iterations: int
    minutes: float
    env_steps: float
    success: float
    n: int
    """Number of episodes; 1 for the success rate of training rollouts."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval."""
        return wilson_interval(round(self.success * self.n), self.n)


@dataclass(frozen=True, slots=True)
class Run:
    """A training run, as read from its folder."""

    name: str
    task: str
    records: Sequence[dict[str, Any]]
    """Logged metrics of each iteration, in order."""

    @property
    def evaluations(self) -> list[Point]:
        """Evaluations of the policy; each was made before the iteration that it is logged with."""
        return [
            _point(record, before, record["eval_success"], int(record["eval_n"]))
            for before, record in zip([{}, *self.records], self.records, strict=False)
            if "eval_success" in record
        ]

    @property
    def training(self) -> list[Point]:
        """Success rates of the training rollouts, with exploration noise."""
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

    Incomplete lines of a killed process are ignored. If an iteration was repeated, its last record
    is used.
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
    """Read a run's log and task; raises CheckpointError if the checkpoint is unreadable.

    Raises TrainingError if the folder contains no log, or the log contains no evaluation.
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
    task = facts.get("fingerprint", {}).get("task", folder.name)
    return Run(name=folder.name, task=task, records=records)
