"""``z1-eval``: success of a bundle on held-out scenes, in-process or through the ROS graph."""

import atexit
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from z1_ros.command import run_command
from z1_ros.errors import ConfigError
from z1_ros.files import write_json, write_text
from z1_ros.models.bundle.manifest import Bundle, load_bundle
from z1_ros.runtime.processes import run_jobs
from z1_ros.sim.evaluation import (
    EpisodeResult,
    InprocEpisodes,
    episode_record,
    mean_success,
    parse_seeds,
    success_table,
)
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator, parse_tasks
from z1_ros.specs import check_contract, embodiment


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """Evaluate a bundle on held-out scenes."""

    bundle: str = "kitchen-z1"
    """Bundle directory, or the name of a shipped one."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    tasks: str = "all"
    """``all`` or task names joined by commas."""
    seeds: str = "10000:10100"
    """Scene seeds, ``first:end`` (end excluded) or joined by commas; all >= 10000."""
    through: str = "inproc"
    """``inproc``, or ``ros``: lockstep through the node graph; both give the same actions."""
    delay_ms: float = 0.0
    """Age that every chunk has when it becomes usable [ms], rounded up to control steps."""
    backend: str = "auto"
    """``auto``, ``onnxruntime`` or ``torch``."""
    threads: int = 1
    """Inference threads of each worker."""
    workers: int = max(1, min(8, os.cpu_count() or 1))
    """Episodes run at the same time, each in a process of its own."""
    json: Path | None = None
    """Write the table and every episode here."""

    def __post_init__(self) -> None:
        """Check choices and ranges."""
        find_simulator(self.robot)
        if self.through not in ("inproc", "ros"):
            raise ConfigError(f"through is {self.through!r}, expected 'inproc' or 'ros'")
        if self.delay_ms < 0:
            raise ConfigError(f"delay_ms is {self.delay_ms}, expected 0 or more")
        if self.backend not in ("auto", "onnxruntime", "torch"):
            raise ConfigError(f"backend is {self.backend!r}, expected auto, onnxruntime or torch")
        if self.workers < 1 or self.threads < 1:
            raise ConfigError("workers and threads must be at least 1")


class Episodes(Protocol):
    """Where episodes are run."""

    def run(self, task: str, seed: int) -> EpisodeResult:
        """Run one episode."""
        ...

    def close(self) -> None:
        """Free what was started."""
        ...


def main(config: EvalConfig) -> dict[str, Any]:
    """Run all episodes, print the table, return (and write) the report.

    Raises:
        Z1Error: Bad settings or bundle.
    """
    bundle = load_bundle(config.bundle)
    robot = embodiment(bundle.manifest.embodiment)
    check_contract(bundle.manifest.contract, robot, bundle.manifest.name)
    tasks = parse_tasks(config.tasks, find_simulator(config.robot).tasks)
    jobs = [(task, seed) for task in tasks for seed in parse_seeds(config.seeds)]
    console = Console()
    journal = Journal(config, bundle)
    results = [result for result in journal.finished if (result.task, result.seed) in set(jobs)]
    known = {(result.task, result.seed) for result in results}
    with _progress(console) as progress:
        bars = {}
        for task in tasks:
            n = sum(job[0] == task for job in jobs)
            bars[task] = progress.add_task(task, total=n, rate="")
        for result in chain(tuple(results), run_all(config, [j for j in jobs if j not in known])):
            if (result.task, result.seed) not in known:
                results.append(result)
                journal.add(result)
            wins = sum(r.success for r in results if r.task == result.task)
            progress.update(bars[result.task], advance=1, rate=f"{wins} succeeded")
    results.sort(key=lambda r: (tasks.index(r.task), r.seed))
    report = make_report(config, bundle, results)
    console.print(render_table(report))
    if config.json is not None:
        write_json(config.json, report)
        journal.remove()
        console.print(f"written to {config.json}")
    return report


class Journal:
    """Finished episodes beside the report-to-be, so that a stopped evaluation can go on.

    It exists only where a report is asked for, and until that is written.
    """

    def __init__(self, config: EvalConfig, bundle: Bundle):
        """Read what an earlier run with the same settings left.

        Raises:
            ConfigError: The file belongs to other settings.
        """
        self.finished: list[EpisodeResult] = []
        """Episodes of the earlier run."""
        self._path: Path | None = None
        if config.json is None:
            return
        self._path = config.json.with_name(config.json.name + ".partial")
        settings = {"bundle": bundle.sha256, "robot": config.robot, "through": config.through}
        settings |= {"delay_ms": config.delay_ms, "backend": config.backend}
        if not self._path.exists():
            write_text(self._path, json.dumps(settings) + "\n")
            return
        # A line that a killed process left half-written is not an episode.
        lines = [line for line in self._path.read_text("utf-8").split("\n")[:-1] if line]
        if not lines or json.loads(lines[0]) != settings:
            raise ConfigError(
                f"{self._path} holds episodes of an evaluation with other settings or another "
                "bundle; delete it or choose another --json"
            )
        self.finished = [EpisodeResult(**json.loads(line)) for line in lines[1:]]
        write_text(self._path, "\n".join(lines) + "\n")

    def add(self, result: EpisodeResult) -> None:
        """Note a finished episode."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(episode_record(result)) + "\n")

    def remove(self) -> None:
        """Delete the file: the report holds everything."""
        if self._path is not None:
            self._path.unlink()


def run_all(config: EvalConfig, jobs: list[tuple[str, int]]) -> Iterator[EpisodeResult]:
    """Yield results as they come, from ``config.workers`` processes."""
    workers = min(config.workers, len(jobs))
    if not jobs:
        return
    yield from run_jobs(workers, _start_worker, (config,), _run_one, jobs)


def make_report(config: EvalConfig, bundle: Bundle, results: list[EpisodeResult]) -> dict[str, Any]:
    """Return the JSON report; its shape is a contract with other programs."""
    table = success_table(results)
    return {
        "bundle": bundle.sha256,
        "name": bundle.manifest.name,
        "robot": config.robot,
        "through": config.through,
        "sampler": "ode",
        "denoise_steps": bundle.manifest.denoise_steps,
        "delay_ms": config.delay_ms,
        "seeds": config.seeds,
        "tasks": table,
        "mean": round(mean_success(table), 4),
        "episodes": [episode_record(result) for result in results],
    }


def render_table(report: dict[str, Any]) -> Table:
    """Return the success table for a terminal."""
    table = Table(title=f"{report['name']} in the {report['robot']}, through {report['through']}")
    table.add_column("task")
    for title in ("success", "95 % interval", "steps"):
        table.add_column(title, justify="right")
    for task, row in report["tasks"].items():
        low, high = row["ci95"]
        rate = row["success"] / row["n"]
        table.add_row(
            task,
            f"{row['success']}/{row['n']} = {rate:.1%}",
            f"{low:.1%} … {high:.1%}",
            f"{row['mean_steps']:.0f}",
        )
    table.add_section()
    table.add_row("mean", f"{report['mean']:.1%}", "", "")
    return table


class _Worker:
    """What a worker process keeps from one episode to the next."""

    config: EvalConfig
    episodes: Episodes | None = None


def _start_worker(config: EvalConfig) -> None:
    _Worker.config = config


def _run_one(task: str, seed: int) -> EpisodeResult:
    # Made here, not in the pool's initialiser: an error there would lose its words.
    if _Worker.episodes is None:
        config = _Worker.config
        _Worker.episodes = _kind(config)(
            config.bundle,
            simulator=config.robot,
            backend=config.backend,
            threads=config.threads,
            delay_ms=config.delay_ms,
        )
        atexit.register(_Worker.episodes.close)
    return _Worker.episodes.run(task, seed)


def _kind(config: EvalConfig) -> Callable[..., Episodes]:
    if config.through == "inproc":
        return InprocEpisodes
    # ROS is imported where it is used, so that evaluation in-process needs none of it.
    from z1_ros.graph.episodes import RosEpisodes

    return RosEpisodes


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    )


def cli() -> int:
    """Entry point of ``z1-eval``."""
    return run_command("z1-eval", main, EvalConfig)
