"""``make demo``: the bundled policy at work through the whole node graph, with films of it."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from sensor_msgs.msg import Image

from z1_ros.command import run_command
from z1_ros.errors import BackendUnavailable, ConfigError
from z1_ros.files import write_json
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes.messages import image_array
from z1_ros.runtime.video import film_strip, pick_frames, stack_strips, write_mp4, write_png
from z1_ros.sim.evaluation import (
    EpisodeResult,
    episode_record,
    parse_seeds,
    success_table,
)
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator, parse_tasks

STRIP_FRAMES = 6
FILM_HZ = 10.0
LAST_PICTURES_S = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Run a bundle in closed loop in a simulator and show what happened."""

    bundle: str = "kitchen-z1"
    """Bundle directory, or the name of a shipped one."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    tasks: str = "all"
    """``all`` or task names joined by commas."""
    seeds: str = "20000:20006"
    """Scenes of each task; all >= 10000, none of them was trained on."""
    mode: str = "lockstep"
    """``lockstep`` (repeatable) or ``realtime`` (physics does not wait for the policy)."""
    out: Path = Path("demo_out")
    """Folder for films, pictures and ``demo.json``."""
    film_size: int = 360
    """Height of the films [px]."""


@dataclass(slots=True)
class TaskRun:
    """What is known of one task so far."""

    task: str
    """Task name."""
    results: list[EpisodeResult] = field(default_factory=list)
    """Finished episodes."""
    doing: str = ""
    """What is going on now."""
    latency: dict[str, float] = field(default_factory=dict)
    """Inference and age figures [ms]."""
    frames: list[np.ndarray] = field(default_factory=list)
    """Film of the episode that is going on."""
    best: list[np.ndarray] = field(default_factory=list)
    """Film of the first success, or of the last episode if there is none."""
    best_success: bool = False
    """Whether ``best`` shows a success."""

    def keep(self, result: EpisodeResult) -> None:
        """Take in a finished episode and its film."""
        self.results.append(result)
        if self.frames and not self.best_success:
            self.best, self.best_success = self.frames, result.success


def main(config: DemoConfig) -> int:
    """Run the demonstration; 0 if at least one episode succeeded."""
    tasks = parse_tasks(config.tasks, find_simulator(config.robot).tasks)
    seeds = parse_seeds(config.seeds)
    manifest = load_bundle(config.bundle).manifest
    console = Console()
    console.print(
        f"[bold]{manifest.name}[/] drives [bold]{manifest.embodiment}[/] in the "
        f"{find_simulator(config.robot).label}, {config.mode}: "
        "sim_bridge_node → policy_node → guard_node → sim_bridge_node"
    )
    graph = PolicyGraphConfig(
        robot=config.robot,
        model=config.bundle,
        mode=config.mode,
        task=tasks[0],
        seed=seeds[0],
        video_size=config.film_size,
        video_hz=FILM_HZ,
        start_paused=True,
        log_level="warn",
    )
    runs = [TaskRun(task=task) for task in tasks]
    with GraphRunner(policy_graph(graph)) as runner, Live(console=console) as live:
        _run_tasks(runner, runs, seeds, live, config.mode)
    console.print()
    _write_pictures(config, runs, console)
    write_json(config.out / "demo.json", _report(config, runs))
    if not any(result.success for run in runs for result in run.results):
        print("demo: not a single episode succeeded", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _run_tasks(
    runner: GraphRunner, runs: list[TaskRun], seeds: list[int], live: Live, mode: str
) -> None:
    now = runs[0]

    def on_film(message: Image) -> None:
        now.frames.append(image_array(message, "film"))

    runner.client.subscribe(Image, "camera/video/image", on_film)
    runner.client.pause(False)
    for run in runs:
        now = run
        for seed in seeds:
            run.frames = []

            def on_progress(values: Any, run: TaskRun = run, seed: int = seed) -> None:
                run.doing = f"scene {seed}, step {values.get('steps', '?')}"
                run.latency = runner.client.latency()
                live.update(_table(runs, mode))

            result = runner.client.run_episode(run.task, seed, on_progress=on_progress)
            # The last pictures may still be under way; the next episode must not get them.
            end_s = time.monotonic() + LAST_PICTURES_S
            runner.client.wait(lambda end_s=end_s: time.monotonic() > end_s, 5.0, "last pictures")
            run.keep(result)
            run.latency = runner.client.latency()
            run.doing = ""
            if not live.console.is_terminal:  # a log file shows the live table only at its end
                ending = "success" if result.success else "no success"
                live.console.print(f"{run.task}, scene {seed}: {ending}, {result.steps} steps")
            live.update(_table(runs, mode))


def _table(runs: list[TaskRun], mode: str) -> Table:
    table = Table(title=f"held-out scenes of the embedded kitchen (not RoboCasa), {mode}")
    table.add_column("task, instruction")
    for title in ("success", "95 %", "steps", "inference\np50/p99 ms", "action age\np50/p99 ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for run in runs:
        instruction = run.results[-1].instruction if run.results else ""
        cells = [f"[bold]{run.task}[/]\n{run.doing or instruction}", "", "", "", "", ""]
        if run.results:
            (row,) = success_table(run.results).values()
            low, high = row["ci95"]
            cells[1] = f"{row['success']}/{row['n']}"
            cells[2] = f"{low:.0%}…{high:.0%}"
            cells[3] = f"{row['mean_steps']:.0f}"
            cells[4] = _pair(run.latency, "infer")
            cells[5] = _pair(run.latency, "age")
        table.add_row(*cells)
    return table


def _pair(latency: dict[str, float], name: str) -> str:
    p50, p99 = latency.get(f"{name}_p50_ms", np.nan), latency.get(f"{name}_p99_ms", np.nan)
    return "" if np.isnan(p50) else f"{p50:.0f} / {p99:.0f}"


def _write_pictures(config: DemoConfig, runs: list[TaskRun], console: Console) -> None:
    strips = []
    for run in runs:
        if not run.best:
            continue
        shown = next((r for r in run.results if r.success), run.results[-1])
        title = f"{run.task}: {shown.instruction}"
        strips.append(film_strip(pick_frames(run.best, STRIP_FRAMES), title, success=shown.success))
        write_png(config.out / f"{run.task}.png", strips[-1])
        film = config.out / f"{run.task}.mp4"
        try:
            write_mp4(film, run.best, FILM_HZ)
            console.print(f"film     {film}")
        except BackendUnavailable as error:
            console.print(f"no film: {error}")
    if not strips:
        raise ConfigError("no pictures arrived on camera/video/image")
    path = config.out / "strip.png"
    write_png(path, stack_strips(strips))
    console.print(f"picture  {path}")


def _report(config: DemoConfig, runs: list[TaskRun]) -> dict[str, Any]:
    return {
        "bundle": load_bundle(config.bundle).sha256,
        "mode": config.mode,
        "tasks": {
            run.task: {
                **success_table(run.results)[run.task],
                "latency": run.latency,
                "episodes": [episode_record(result) for result in run.results],
            }
            for run in runs
        },
    }


def cli() -> int:
    """Entry point of ``make demo``."""
    return run_command("demo", main, DemoConfig)
