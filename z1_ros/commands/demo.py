"""``z1-demo``: run a bundle in the complete node graph and record videos."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from sensor_msgs.msg import Image

from z1_ros.errors import BackendUnavailable, ConfigError, GraphError
from z1_ros.files import require_writable, write_json
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner
from z1_ros.models.bundle.manifest import Bundle, load_bundle
from z1_ros.nodes.messages import image_array
from z1_ros.runtime.video import frame_strip, pick_frames, stack_strips, write_mp4, write_png
from z1_ros.sim.episodes import EpisodeResult, episode_record
from z1_ros.sim.evaluation import parse_seeds, success_table
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator, parse_tasks

STRIP_FRAMES = 6
VIDEO_HZ = 10.0
LAST_FRAMES_S = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Run a bundle in closed loop in a simulator and record videos of the episodes."""

    bundle: str = "kitchen-z1"
    """Bundle directory, or the name of a shipped bundle."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    tasks: str = "all"
    """``all`` or task names joined by commas."""
    seeds: str = "20000:20006"
    """Scene seeds of each task; all >= 10000, which training never uses."""
    mode: Literal["lockstep", "realtime"] = "lockstep"
    """``lockstep`` (repeatable) or ``realtime`` (physics does not wait for the policy)."""
    out: Path = Path("demo_out")
    """Folder for videos, pictures and ``demo.json``."""
    video_size: int = 360
    """Height of the videos [px]."""

    def __post_init__(self) -> None:
        parse_tasks(self.tasks, find_simulator(self.robot).tasks)
        parse_seeds(self.seeds)
        if not 16 <= self.video_size <= 2048:
            raise ConfigError(f"video_size is {self.video_size}, expected 16 to 2048 pixels")
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"out: {self.out} is a file, expected a folder")


@dataclass(slots=True)
class TaskRun:
    """Results of one task so far."""

    task: str
    """Task name."""
    results: list[EpisodeResult] = field(default_factory=list)
    """Finished episodes."""
    doing: str = ""
    """Description of the present activity."""
    latency: dict[str, float] = field(default_factory=dict)
    """Duration of inference and age of actions [ms]."""
    frames: list[np.ndarray] = field(default_factory=list)
    """Video frames of the running episode."""
    shown: EpisodeResult | None = None
    """Episode to show: the first successful one, or the first episode if all failed."""
    video: list[np.ndarray] = field(default_factory=list)
    """Video frames of the episode to show."""

    def keep(self, result: EpisodeResult) -> None:
        """Add a finished episode, and keep its video if it is the episode to show."""
        self.results.append(result)
        better = self.shown is None or (result.success and not self.shown.success)
        if self.frames and better:
            self.shown, self.video = result, self.frames
        self.frames, self.doing = [], ""


def main(config: DemoConfig) -> int:
    """Run the demonstration; return exit code 0 if at least one episode succeeded."""
    console = Console()
    simulator, seeds = find_simulator(config.robot), parse_seeds(config.seeds)
    runs = [TaskRun(task) for task in parse_tasks(config.tasks, simulator.tasks)]
    console.print(
        f"{config.bundle} in the {simulator.label}, {config.mode}: "
        f"{', '.join(run.task for run in runs)}, {len(seeds)} × each\n"
        "sim_bridge_node → policy_node → guard_node → sim_bridge_node"
    )
    require_writable(config.out / "demo.json")
    bundle = load_bundle(config.bundle)
    graph = PolicyGraphConfig(
        robot=config.robot,
        model=config.bundle,
        mode=config.mode,
        task=runs[0].task,
        seed=seeds[0],
        video_size=config.video_size,
        video_hz=VIDEO_HZ,
        start_paused=True,
        log_level="warn",
    )
    title = f"held-out scenes, {simulator.label}, {config.mode}"
    with GraphRunner(policy_graph(graph)) as runner, Live(console=console) as live:
        _run_tasks(runner, runs, seeds, live, title)
    console.print()
    write_json(config.out / "demo.json", report(config, bundle, runs))
    write_videos(config.out, runs, console)
    episodes = [result for run in runs for result in run.results]
    won = sum(result.success for result in episodes)
    console.print(
        f"{won} of {len(episodes)} episodes succeeded; videos, pictures and demo.json are in "
        f"{config.out.absolute()}",
        soft_wrap=True,
    )
    return 0 if won else 1


def _run_tasks(
    runner: GraphRunner, runs: Sequence[TaskRun], seeds: Sequence[int], live: Live, title: str
) -> None:
    """Run every scene of every task and update the live table."""
    run, client = runs[0], runner.client

    def on_frame(message: Image) -> None:
        run.frames.append(image_array(message, "video"))

    def show() -> None:
        run.latency = client.latency()
        live.update(render_table(runs, title))

    def on_progress(values: Mapping[str, str]) -> None:
        run.doing = f"scene {seed}, step {values.get('steps', '?')}"
        show()

    def wait_for_last_frames() -> None:
        """Wait, so that the next episode does not receive them."""
        end_s = time.monotonic() + LAST_FRAMES_S
        client.wait(lambda: time.monotonic() > end_s, 5.0, "last frames")

    client.subscribe(Image, "camera/video/image", on_frame)
    client.pause(False)
    for run in runs:
        for seed in seeds:
            result = client.run_episode(run.task, seed, on_progress=on_progress)
            wait_for_last_frames()
            run.keep(result)
            if not live.console.is_terminal:  # without a terminal, the table is shown at the end
                ending = "success" if result.success else "no success"
                live.console.print(f"{run.task}, scene {seed}: {ending}, {result.steps} steps")
            show()


def render_table(runs: Sequence[TaskRun], title: str) -> Table:
    """Return a table of the results so far, with one row per task."""
    table = Table(title=title)
    table.add_column("task, instruction")
    for name in ("success", "95 %", "steps", "inference\np50/p99 ms", "action age\np50/p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        cells = [""] * 5
        if run.results:
            (row,) = success_table(run.results).values()
            low, high = row["ci95"]
            cells = [f"{row['success']}/{row['n']}", f"{low:.0%}…{high:.0%}"]
            cells += [f"{row['mean_steps']:.0f}"]
            cells += [_percentiles(run.latency, name) for name in ("infer", "age")]
        instruction = run.results[-1].instruction if run.results else ""
        table.add_row(f"[bold]{run.task}[/]\n{run.doing or instruction}", *cells)
    return table


def _percentiles(latency: dict[str, float], name: str) -> str:
    p50, p99 = latency.get(f"{name}_p50_ms", np.nan), latency.get(f"{name}_p99_ms", np.nan)
    return "" if np.isnan(p50) else f"{p50:.0f} / {p99:.0f}"


def write_videos(out: Path, runs: Sequence[TaskRun], console: Console) -> None:
    """Write a video and a picture of each task, and one picture of all tasks.

    Raises:
        GraphError: No video frame arrived.
    """
    strips, missing = [], ""
    for run in runs:
        if run.shown is None:
            continue
        title = f"{run.task}: {run.shown.instruction}"
        frames = pick_frames(run.video, STRIP_FRAMES)
        strips.append(frame_strip(frames, title, success=run.shown.success))
        write_png(out / f"{run.task}.png", strips[-1])
        try:
            write_mp4(out / f"{run.task}.mp4", run.video, VIDEO_HZ)
        except BackendUnavailable as error:
            missing = str(error)
    if not strips:
        raise GraphError("no frame arrived on camera/video/image, so there is nothing to show")
    write_png(out / "strip.png", stack_strips(strips))
    if missing:
        console.print(f"no videos, only pictures: {missing}")


def report(config: DemoConfig, bundle: Bundle, runs: Sequence[TaskRun]) -> dict[str, Any]:
    """Return the content of ``demo.json``."""
    return {
        "bundle": bundle.sha256,
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
