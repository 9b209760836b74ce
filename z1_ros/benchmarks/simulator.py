"""``z1-bench sim``: control steps per second of a simulator, compared with robosuite's Lift.

Both run on one core. robosuite 1.5.2 needs mujoco < 3.10 and therefore a separate Python.
"""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from rich.console import Console

from z1_ros.benchmarks import simulator_worker
from z1_ros.benchmarks.report import Row, publish
from z1_ros.errors import BackendUnavailable, ConfigError
from z1_ros.progress import Progress
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator, parse_task


@dataclass(frozen=True, kw_only=True, slots=True)
class SimBenchConfig:
    """Control steps per second of a simulator, compared with robosuite's Lift."""

    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    task: str = "PnPCounterToSink"
    """Task of the simulator; the default one has the most contacts."""
    lift_python: Path | None = None
    """Python with robosuite 1.5.2 and mujoco < 3.10; if not given, there is no comparison."""
    cameras: tuple[int, ...] = (0, 3)
    """Numbers of cameras to render at every control step; each number is measured."""
    size: int = 224
    """Height and width of the images [px]."""
    blocks: int = 5
    """Number of measured blocks for each simulator; the blocks of the simulators alternate."""
    seconds: float = 3.0
    """Approximate duration of a block [s]."""
    core: int | None = None
    """CPU core on which both simulators run; if not given, the last one available."""
    json: Path | None = None
    """File to which the report is written."""

    def __post_init__(self) -> None:
        parse_task(self.task, find_simulator(self.robot).tasks)
        if self.lift_python is not None and not self.lift_python.is_file():
            raise ConfigError(
                f"lift_python: no file {self.lift_python}; `make bench` makes such an environment"
            )
        if not all(0 <= n <= 3 for n in self.cameras):
            raise ConfigError(f"cameras must be 0 to 3, got {list(self.cameras)}")
        if self.blocks < 1 or not 0 < self.seconds < float("inf"):
            raise ConfigError("blocks must be at least 1, and seconds above 0 and finite")


class _Side:
    """A worker process that measures one environment."""

    def __init__(self, name: str, side: str, python: str, core: int):
        self.name = name
        self._said = TemporaryFile("w+", errors="replace")  # noqa: SIM115  (a pipe could fill up)
        self._process = subprocess.Popen(
            [python, simulator_worker.__file__, side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")},
        )
        os.sched_setaffinity(self._process.pid, {core})

    def rate(self, config: SimBenchConfig, cameras: int, steps: int) -> float:
        """Return the control steps per second, measured over ``steps`` steps.

        Raises:
            BackendUnavailable: The worker died.
        """
        request = {"robot": config.robot, "task": config.task, "size": config.size}
        request |= {"cameras": cameras, "steps": steps}
        assert self._process.stdin and self._process.stdout  # pipes
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        reply = self._process.stdout.readline()
        if not reply:
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or ["no message"]
            raise BackendUnavailable(f"{self.name} cannot run: {said[-1]}")
        return json.loads(reply)["steps_per_s"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()


def main(config: SimBenchConfig) -> dict[str, Any]:
    """Measure, print a table, and return the report."""
    console = Console()
    core = max(os.sched_getaffinity(0)) if config.core is None else config.core
    subject = f"{config.robot} {config.task}"
    console.print(f"{subject}: blocks of about {config.seconds:g} s on core {core}")
    pythons = {("ours", subject): sys.executable}
    if config.lift_python is not None:
        pythons["lift", "robosuite Lift"] = str(config.lift_python)
    rows = []
    with contextlib.ExitStack() as stack:
        sides = [
            stack.enter_context(contextlib.closing(_Side(name, side, python, core)))
            for (side, name), python in pythons.items()
        ]
        blocks = {side.name: config.blocks * len(config.cameras) for side in sides}
        progress = stack.enter_context(Progress(console, blocks))
        for cameras in config.cameras:
            trial = [side.rate(config, cameras, 20) for side in sides]
            rates: list[list[float]] = [[] for _ in sides]
            for _ in range(config.blocks):
                for side, tried, rate in zip(sides, trial, rates, strict=True):
                    steps = max(20, round(tried * config.seconds))
                    rate.append(side.rate(config, cameras, steps))
                    progress.advance(side.name)
            names = [f"{side.name}, {cameras} cameras" for side in sides]
            for name, rate in zip(names, rates, strict=True):
                baseline = names[-1] if name != names[-1] else ""
                rows.append(Row(name, "control steps", "1/s", rate, baseline))
    facts = {"core": core, "images": f"{config.size} x {config.size}, at every control step"}
    return publish("z1-bench sim", config, rows, facts, console)
