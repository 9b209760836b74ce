"""``z1-eval``: success of a bundle on held-out scenes, in-process or through the ROS graph."""

import atexit
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.table import Table

from z1_ros.errors import ConfigError
from z1_ros.files import write_json
from z1_ros.models.bundle.manifest import Bundle, load_bundle
from z1_ros.progress import Progress, duration
from z1_ros.runtime.processes import run_jobs
from z1_ros.sim.episodes import EpisodeResult, InprocEpisodes, episode_record
from z1_ros.sim.evaluation import mean_success, parse_seeds, success_table
from z1_ros.sim.journal import Journal
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator, parse_tasks
from z1_ros.specs import check_contract, embodiment

Job = tuple[str, int]
"""Task and seed."""
MAX_DELAY_MS = 60_000.0
"""Longest delay that makes any sense: an episode is over by then [ms]."""


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
    through: Literal["inproc", "ros"] = "inproc"
    """``inproc``, or ``ros``: lockstep through the node graph; both give the same actions."""
    delay_ms: float = 0.0
    """Age that every chunk has when it becomes usable [ms], rounded up to control steps."""
    backend: Literal["auto", "onnxruntime", "torch"] = "auto"
    """What runs the network; ``auto`` takes onnxruntime where the bundle has graphs."""
    threads: int = 1
    """Inference threads of each worker."""
    workers: int = 0
    """Episodes run at the same time, each in a process of its own; 0: one a core, at most 8."""
    json: Path | None = None
    """Write the table and every episode here; a stopped evaluation goes on from beside it."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        parse_tasks(self.tasks, find_simulator(self.robot).tasks)
        parse_seeds(self.seeds)
        if not 0 <= self.delay_ms <= MAX_DELAY_MS:
            raise ConfigError(
                f"delay_ms is {self.delay_ms}, expected 0 to {MAX_DELAY_MS:.0f} milliseconds"
            )
        if not (0 <= self.workers <= 256 and 1 <= self.threads <= 256):
            raise ConfigError(
                f"workers is {self.workers} and threads {self.threads}, "
                "expected 0 to 256 workers and 1 to 256 threads"
            )
        if self.json is not None and self.json.exists() and not self.json.is_file():
            raise ConfigError(f"json: {self.json} is no regular file")

    @property
    def jobs(self) -> list[Job]:
        """Every task and seed to run."""
        tasks = parse_tasks(self.tasks, find_simulator(self.robot).tasks)
        return [(task, seed) for task in tasks for seed in parse_seeds(self.seeds)]

    @property
    def processes(self) -> int:
        """How many episodes really run at the same time."""
        return min(self.workers or min(8, os.cpu_count() or 1), len(self.jobs))


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
    console, began_s = Console(), time.monotonic()
    console.print(
        f"{config.bundle}: {len(config.jobs)} episodes in the {config.robot}, "
        f"through {config.through}, {config.processes} at a time"
    )
    bundle = load_bundle(config.bundle)
    robot = embodiment(bundle.manifest.embodiment)
    check_contract(bundle.manifest.contract, robot, bundle.manifest.name)
    settings = {"bundle": bundle.sha256, "robot": config.robot, "through": config.through}
    settings |= {"delay_ms": config.delay_ms, "backend": config.backend}
    journal = Journal(config.json, settings)
    results = run_missing(config, journal, console)
    report = make_report(config, bundle, results)
    if config.json is not None:
        write_json(config.json, report)
        journal.remove()
    console.print(render_table(report))
    won = sum(result.success for result in results)
    console.print(
        f"{won} of {len(results)} episodes succeeded, after {duration(time.monotonic() - began_s)}"
        + (f"; the report is {config.json}" if config.json is not None else ""),
        soft_wrap=True,
    )
    return report


def run_missing(config: EvalConfig, journal: Journal, console: Console) -> list[EpisodeResult]:
    """Run what the journal does not hold; return all results in the order of the jobs."""
    jobs = config.jobs
    wanted = {job: place for place, job in enumerate(jobs)}
    kept = [r for r in journal.finished if (r.task, r.seed) in wanted]
    known = {(r.task, r.seed) for r in kept}
    if kept:
        console.print(f"{len(kept)} of them are kept from an earlier run ({journal.path})")
    totals: dict[str, int] = {}
    for task, _ in jobs:
        totals[task] = totals.get(task, 0) + 1
    wins = dict.fromkeys(totals, 0)
    results: list[EpisodeResult] = []
    with Progress(console, totals) as progress:

        def take(result: EpisodeResult, *, earlier: bool) -> None:
            results.append(result)
            wins[result.task] += result.success
            progress.advance(result.task, f"{wins[result.task]} succeeded", earlier=earlier)

        for result in kept:
            take(result, earlier=True)
        for result in run_all(config, [job for job in jobs if job not in known]):
            journal.add(result)
            take(result, earlier=False)
    return sorted(results, key=lambda r: wanted[r.task, r.seed])


def run_all(config: EvalConfig, jobs: Sequence[Job]) -> Iterator[EpisodeResult]:
    """Yield results as they come, from ``config.processes`` processes."""
    if jobs:
        workers = min(config.processes, len(jobs))
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
        _Worker.episodes = _episodes(config.through)(
            config.bundle,
            simulator=config.robot,
            backend=config.backend,
            threads=config.threads,
            delay_ms=config.delay_ms,
        )
        atexit.register(_Worker.episodes.close)
    return _Worker.episodes.run(task, seed)


def _episodes(through: str) -> Callable[..., Episodes]:
    if through == "inproc":
        return InprocEpisodes
    # ROS is imported where it is used, so that evaluation in-process needs none of it.
    from z1_ros.graph.episodes import RosEpisodes

    return RosEpisodes
