"""``z1-eval``: success rate of a bundle on held-out scenes, in-process or in the ROS graph."""

import atexit
import os
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

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

MAX_DELAY_MS = 60_000.0
"""Largest allowed delay [ms]; every episode is shorter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """Evaluate a bundle on held-out scenes."""

    bundle: str = "kitchen-z1"
    """Bundle directory, or the name of a shipped bundle."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    tasks: str = "all"
    """``all`` or task names joined by commas."""
    seeds: str = "10000:10100"
    """Scene seeds, ``first:end`` (end excluded) or joined by commas; all >= 10000."""
    through: Literal["inproc", "ros"] = "inproc"
    """``inproc``: without ROS; ``ros``: through the node graph, in lockstep. Both give the same
    actions."""
    delay_ms: float = 0.0
    """Time from an observation until its chunk can be used [ms], rounded up to control steps."""
    backend: Literal["auto", "onnxruntime", "torch"] = "auto"
    """Library that runs the network; ``auto`` uses onnxruntime if the bundle contains graphs."""
    threads: int = 1
    """Inference threads of each worker."""
    workers: int = 0
    """Episodes that run at the same time, each in its own process; 0: one per CPU core, at most
    8."""
    json: Path | None = None
    """File for the table and every episode. A stopped evaluation is resumed from FILE.partial."""

    def __post_init__(self) -> None:
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
    def jobs(self) -> list[tuple[str, int]]:
        """Every task and seed to run."""
        tasks = parse_tasks(self.tasks, find_simulator(self.robot).tasks)
        return [(task, seed) for task in tasks for seed in parse_seeds(self.seeds)]

    @property
    def processes(self) -> int:
        """Number of episodes that run at the same time."""
        return min(self.workers or min(8, os.cpu_count() or 1), len(self.jobs))


def main(config: EvalConfig) -> dict[str, Any]:
    """Run all episodes, print the table, write the report and return it.

    Raises:
        Z1Error: The settings or the bundle are invalid.
    """
    console, began_s = Console(), time.monotonic()
    console.print(
        f"{config.bundle}: {len(config.jobs)} episodes in the {config.robot}, "
        f"through {config.through}, {config.processes} at a time"
    )
    bundle = load_bundle(config.bundle)
    robot = embodiment(bundle.manifest.embodiment)
    check_contract(bundle.manifest.contract, robot, bundle.manifest.name)
    choices = {name: getattr(config, name) for name in ("robot", "through", "delay_ms", "backend")}
    journal = Journal(config.json, {"bundle": bundle.sha256, **choices})
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
    """Run the jobs that are not in the journal; return all results in the order of the jobs."""
    jobs = config.jobs
    finished = {(result.task, result.seed): result for result in journal.finished}
    results = {job: finished[job] for job in jobs if job in finished}
    missing = [job for job in jobs if job not in results]
    if results:
        console.print(f"{len(results)} of them are kept from an earlier run ({journal.path})")
    wins: Counter[str] = Counter()
    with Progress(console, Counter(task for task, _ in jobs)) as progress:

        def count(result: EpisodeResult, *, earlier: bool) -> None:
            wins[result.task] += result.success
            progress.advance(result.task, f"{wins[result.task]} succeeded", earlier=earlier)

        for result in results.values():
            count(result, earlier=True)
        # The first job opens the simulator: an error at a worker's start would lose its message.
        workers, calls = min(config.processes, len(missing)), [(config, *job) for job in missing]
        for result in run_jobs(workers, tuple, (), _run, calls) if missing else ():
            journal.add(result)
            results[result.task, result.seed] = result
            count(result, earlier=False)
    return [results[job] for job in jobs]


def _run(config: EvalConfig, task: str, seed: int) -> EpisodeResult:
    return _episodes(config).run(task, seed)


@cache
def _episodes(config: EvalConfig) -> Any:
    """Return the object that runs the episodes of this worker process."""
    kind: Any = InprocEpisodes
    if config.through == "ros":
        # ROS is imported only here, so that in-process evaluation works without ROS.
        from z1_ros.graph.episodes import RosEpisodes

        kind = RosEpisodes
    episodes = kind(
        config.bundle,
        simulator=config.robot,
        backend=config.backend,
        threads=config.threads,
        delay_ms=config.delay_ms,
    )
    atexit.register(episodes.close)
    return episodes


def make_report(config: EvalConfig, bundle: Bundle, results: list[EpisodeResult]) -> dict[str, Any]:
    """Return the JSON report; other programs rely on its format."""
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
        won, n, (low, high) = row["success"], row["n"], row["ci95"]
        cells = f"{won}/{n} = {won / n:.1%}", f"{low:.1%} … {high:.1%}", f"{row['mean_steps']:.0f}"
        table.add_row(task, *cells)
    table.add_section()
    table.add_row("mean", f"{report['mean']:.1%}", "", "")
    return table
