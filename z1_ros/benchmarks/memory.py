"""``z1-bench memory``: whether many iterations of ``z1-train`` need more memory than a few.

It is z1-train itself that runs, on small groups and with a learning rate next to nothing, so that
the last iteration has as much to do as the first; checkpoints and logs are written as always.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.files import write_json
from z1_ros.learning.core.learner import OpenPool
from z1_ros.learning.core.run_log import read_records
from z1_ros.learning.core.train_state import LOG
from z1_ros.learning.grpo.config import GrpoConfig, Z1Config
from z1_ros.learning.grpo.train import main as train
from z1_ros.learning.rollout.env_pool import local_workers

TENTHS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBenchConfig:
    """Resident memory of learner and environments over many iterations."""

    iterations: int = 1000
    """Iterations of z1-train."""
    bundle: str = "kitchen-sft"
    """Policy to start from."""
    task: str = "OpenDrawer"
    """Kitchen task."""
    groups: int = 2
    """Groups of an iteration."""
    group_size: int = 4
    """Rollouts of a group."""
    prefix: int = 2
    """Chunks that they share."""
    max_chunks: int = 12
    """Chunks of an episode; few, but enough that some succeed and some do not."""
    workers: int = 2
    """Environments at work side by side."""
    trained: str = "expert"
    """``expert`` or ``joint``."""
    eval_every: int = 100
    """Iterations between two measurements of success."""
    sample_s: float = 0.5
    """Time between two looks at the memory [s]."""
    json: Path | None = None
    """Write the figures here."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.iterations < TENTHS:
            raise ConfigError(f"iterations is {self.iterations}, expected {TENTHS} or more")
        if not self.sample_s > 0:
            raise ConfigError(f"sample_s is {self.sample_s}, expected more than 0")
        if not Path("/proc/self/statm").exists():
            raise ConfigError("resident memory is read from /proc, which this system lacks")


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at the memory."""

    learner_mib: float
    """Of this process."""
    workers_mib: float
    """Of all processes that it started."""


def resident_mib(pid: int) -> float:
    """Return a process's resident memory; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, and theirs."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from descendants(child)


class Watch(threading.Thread):
    """Looks at the memory again and again while a run's log exists."""

    def __init__(self, log: Path, period_s: float):
        """Set up.

        Args:
            log: Nothing counts before it exists: what starting takes is no growth.
            period_s: Time between two looks [s].
        """
        super().__init__(daemon=True)
        self._log, self._period_s = log, period_s
        self._ended = threading.Event()
        self.samples: list[Sample] = []

    def run(self) -> None:
        """Look until the end."""
        while not self._ended.wait(self._period_s):
            if self._log.exists():
                workers = sum(resident_mib(child) for child in descendants(os.getpid()))
                self.samples.append(Sample(resident_mib(os.getpid()), workers))

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def by_tenths(values: list[float]) -> list[float]:
    """Return the median of each tenth of the values.

    Raises:
        TrainingError: There are less than ten.
    """
    if len(values) < TENTHS:
        raise TrainingError(
            f"only {len(values)} looks at the memory, {TENTHS} or more are needed: "
            "run more iterations, or lower sample_s"
        )
    edges = [len(values) * i // TENTHS for i in range(TENTHS + 1)]
    return [round(statistics.median(values[a:b]), 1) for a, b in pairwise(edges)]


def main(config: MemoryBenchConfig, open_pool: OpenPool = local_workers) -> dict[str, Any]:
    """Train, watch, print a table, return the figures.

    Args:
        config: What to run.
        open_pool: Where its environments are.
    """
    with tempfile.TemporaryDirectory(prefix="z1-memory-") as name:
        folder = Path(name)
        log = folder / "run" / LOG
        began = time.perf_counter()
        with Watch(log, config.sample_s) as watch:
            train(_settings(config, folder), open_pool)
        records = [r for r in read_records(folder / "run") if "train_success" in r]
        minutes = (time.perf_counter() - began) / 60
    report: dict[str, Any] = {
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()},
        "minutes": round(minutes, 1),
        "iterations": len(records),
        "updates": sum("kl" in record for record in records),
        "looks": len(watch.samples),
    }
    for side in ("learner_mib", "workers_mib"):
        values = [getattr(sample, side) for sample in watch.samples]
        tenths = by_tenths(values)
        growth = round(tenths[-1] - tenths[0], 1)
        report[side] = {"tenths": tenths, "max": round(max(values), 1), "growth": growth}
    _print(report, config.workers)
    if config.json is not None:
        write_json(config.json, report)
    return report


def _settings(config: MemoryBenchConfig, folder: Path) -> Z1Config:
    return Z1Config(
        bundle=config.bundle,
        task=config.task,
        out=folder / "out",
        run=folder / "run",
        minutes=0.0,
        iterations=config.iterations,
        workers=config.workers,
        max_chunks=config.max_chunks,
        eval_every=config.eval_every,
        eval_episodes=config.workers,
        grpo=GrpoConfig(
            group_size=config.group_size,
            groups=config.groups,
            prefix=config.prefix,
            trained=config.trained,
            learning_rate=1e-9,
            vlm_learning_rate=1e-9,
        ),
        export=False,
    )


def _print(report: dict[str, Any], workers: int) -> None:
    table = Table(
        title=f"Resident memory [MiB] over {report['iterations']} iterations "
        f"({report['updates']} with an update), {report['minutes']} min"
    )
    for title in ("", "first tenth", "last tenth", "growth", "largest"):
        table.add_column(title, justify="right")
    for side, name in (("learner_mib", "learner"), ("workers_mib", f"{workers} environments")):
        found = report[side]
        values = (found["tenths"][0], found["tenths"][-1], found["growth"], found["max"])
        table.add_row(name, *(f"{value:.1f}" for value in values))
    Console().print(table)
