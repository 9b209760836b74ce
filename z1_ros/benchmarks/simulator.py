"""``z1-bench sim``: control steps per second of the kitchen beside robosuite's Lift.

Both run in one run on one core, in blocks that alternate, so that whatever else the machine does
meets both. robosuite 1.5.2 needs mujoco < 3.10, hence a Python of its own.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from z1_ros.benchmarks import simulator_worker
from z1_ros.errors import BackendUnavailable, ConfigError, closest
from z1_ros.files import write_json
from z1_ros.sim.kitchen import TASKS


@dataclass(frozen=True, kw_only=True, slots=True)
class SimBenchConfig:
    """Control steps per second, kitchen beside robosuite's Lift."""

    lift_python: Path | None = None
    """Python that has robosuite 1.5.2 and mujoco < 3.10; without it only the kitchen runs."""
    task: str = "PnPCounterToSink"
    """Kitchen task; the default one has the most contacts."""
    cameras: tuple[int, ...] = (0, 3)
    """How many cameras are rendered at every control step, one row each."""
    size: int = 224
    """Height and width of the pictures [pixel]."""
    blocks: int = 5
    """Alternating blocks of each side."""
    seconds: float = 3.0
    """About how long a block takes [s]."""
    core: int | None = None
    """Core that both sides run on; None takes the last one available."""
    json: Path | None = None
    """Write the figures here."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.task not in TASKS:
            raise ConfigError(f"the kitchen has no task {self.task!r}. {closest(self.task, TASKS)}")
        if self.lift_python is not None and not self.lift_python.is_file():
            raise ConfigError(
                f"lift_python: no file {self.lift_python}; `make bench` makes such an environment"
            )
        if not all(0 <= n <= 3 for n in self.cameras):
            raise ConfigError(f"cameras must be 0 to 3, got {list(self.cameras)}")
        if self.blocks < 1 or self.seconds <= 0:
            raise ConfigError("blocks and seconds must be above 0")


class _Side:
    """A worker process that measures one environment."""

    def __init__(self, name: str, python: str | Path, core: int):
        environment = {**os.environ, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
        self._name = name
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (a pipe could fill up)
        self._process = subprocess.Popen(
            [str(python), simulator_worker.__file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=environment,
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, {core})

    def rate(self, config: SimBenchConfig, cameras: int, steps: int) -> float:
        """Return control steps per second over ``steps`` steps.

        Raises:
            BackendUnavailable: The worker died.
        """
        asked = {"cameras": cameras, "size": config.size, "task": config.task, "steps": steps}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or ["no message"]
            raise BackendUnavailable(f"the {self._name} side cannot run: {said[-1]}")
        return json.loads(answer)["steps_per_s"]

    def close(self) -> None:
        """End the worker."""
        self._process.kill()
        self._process.communicate()
        self._said.close()


@contextlib.contextmanager
def _sides(config: SimBenchConfig, core: int) -> Iterator[dict[str, _Side]]:
    pythons = {"kitchen": Path(sys.executable)}
    if config.lift_python is not None:
        pythons["lift"] = config.lift_python
    sides = {name: _Side(name, python, core) for name, python in pythons.items()}
    try:
        yield sides
    finally:
        for side in sides.values():
            side.close()


def summary(values: list[float]) -> dict[str, float]:
    """Return median, min and max."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def main(config: SimBenchConfig) -> dict[str, Any]:
    """Measure, print a table, return the figures."""
    console = Console()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    core = cores[-1] if config.core is None else config.core
    rows = []
    with _sides(config, core) as sides, console.status("measuring") as status:
        for cameras in config.cameras:
            rates: dict[str, list[float]] = {name: [] for name in sides}
            trial = {name: side.rate(config, cameras, 20) for name, side in sides.items()}
            for block in range(config.blocks):
                for name, side in sides.items():
                    status.update(f"{name}, {cameras} cameras, block {block + 1}/{config.blocks}")
                    steps = max(20, round(trial[name] * config.seconds))
                    rates[name].append(side.rate(config, cameras, steps))
            row: dict[str, Any] = {"cameras": cameras}
            row |= {f"{name}_steps_per_s": summary(values) for name, values in rates.items()}
            if "lift" in rates:
                pairs = zip(rates["kitchen"], rates["lift"], strict=True)
                row["ratio"] = summary([ours / theirs for ours, theirs in pairs])
            rows.append(row)
    report = {
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()},
        "core": core,
        "rows": rows,
    }
    _print(console, config, rows)
    if config.json is not None:
        write_json(config.json, report)
    return report


def _print(console: Console, config: SimBenchConfig, rows: list[dict[str, Any]]) -> None:
    table = Table(
        title=f"Control steps per second on one core, cameras of {config.size} x {config.size} "
        f"rendered every step: median (min-max) of {config.blocks} alternating blocks"
    )
    for title in ("cameras", f"kitchen {config.task}", "robosuite Lift", "ratio"):
        table.add_column(title, justify="right")
    for row in rows:
        cells = (
            f"{v['median']:.1f} ({v['min']:.1f}-{v['max']:.1f})" if (v := row.get(key)) else "-"
            for key in ("kitchen_steps_per_s", "lift_steps_per_s", "ratio")
        )
        table.add_row(str(row["cameras"]), *cells)
    console.print(table)
