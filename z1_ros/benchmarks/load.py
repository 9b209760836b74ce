"""``z1-bench load``: size of a bundle on disk and in memory, and time to its first action chunk.

The bundle is loaded in a separate process. The kernel measures the peak memory of that process,
including the mapped pages of the weights file that were read.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from z1_ros.benchmarks.report import Row, publish
from z1_ros.errors import ConfigError
from z1_ros.models.bundle.manifest import WEIGHTS, Manifest, load_bundle
from z1_ros.models.network.geometry import preset
from z1_ros.policy.backends import load_policy
from z1_ros.runtime.processes import run_jobs
from z1_ros.specs import embodiment
from z1_ros.types import Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadBenchConfig:
    """Disk size, load time, peak memory and first chunk of a bundle."""

    bundle: str = ""
    """Bundle to load; if not given, a bundle with random weights is made."""
    geometry: Literal["small", "full"] = "full"
    """Sizes of the random bundle; ``full`` is the published π0.5."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the random weights."""
    embodiment: str = "panda_omron"
    """Robot of the random bundle."""
    experts: int = 0
    """Number of task experts of the random bundle, in addition to its base expert."""
    threads: int = 2
    """Number of CPU threads."""
    json: Path | None = None
    """File to which the report is written."""

    def __post_init__(self) -> None:
        embodiment(self.embodiment)
        if not (0 <= self.experts <= 1000 and 1 <= self.threads <= 1000):
            raise ConfigError(
                f"experts is {self.experts} and threads {self.threads}, "
                "expected 0 to 1000 experts and 1 to 1000 threads"
            )


def main(config: LoadBenchConfig) -> dict[str, Any]:
    """Measure, print a table, and return the report."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="z1-load-") as folder:
        path = config.bundle
        if not path:
            path = f"{folder}/{config.geometry}-random"
            console.print(f"writing random weights ({config.geometry}, {config.dtype})")
            _apart(make, Path(path), config)
        bundle = load_bundle(path)
        console.print(f"loading {bundle.manifest.name} in a process of its own")
        measured, chunk_shape = _apart(measure, bundle.path, config.threads)
        size_gb = bundle.file(WEIGHTS).stat().st_size / 1e9
    quantities: dict[tuple[str, str], float] = {("weights on disk", "GB"): size_gb, **measured}
    rows = [Row(bundle.manifest.name, *key, [value]) for key, value in quantities.items()]
    facts = {"threads": config.threads, "chunk shape": chunk_shape}
    return publish("z1-bench load", config, rows, facts, console)


def _apart(call: Callable[..., Any], *args: Any) -> Any:
    """Run ``call`` in a separate process and return its result."""
    (result,) = run_jobs(1, tuple, (), call, [args])
    return result


def make(folder: Path, config: LoadBenchConfig) -> None:
    """Write a random bundle."""
    from z1_ros.models.bundle.random_bundle import write_random_bundle

    experts = [f"task{i}" for i in range(config.experts)]
    robot = embodiment(config.embodiment)
    write_random_bundle(folder, preset(config.geometry), robot, config.dtype, experts=experts)


def measure(path: Path, threads: int) -> tuple[dict[tuple[str, str], float], list[int]]:
    """Compute one chunk; return times and peak memory by quantity and unit, and its shape."""
    began = time.perf_counter()
    policy = load_policy(path, threads=threads)
    loaded = time.perf_counter()
    chunk = policy.infer(random_observation(policy.manifest))
    cost = {
        ("check and load", "s"): loaded - began,
        ("first chunk after that", "s"): time.perf_counter() - loaded,
        ("peak memory", "GiB"): resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    return cost, list(chunk.actions.shape)


def random_observation(manifest: Manifest) -> Observation:
    """Return a random observation with all cameras and state fields of a bundle's contract."""
    random = np.random.default_rng(0)
    shape = (256, 256, 3)
    return Observation(
        images={c: random.integers(0, 256, shape, np.uint8) for c in manifest.contract.cameras},
        state={f.name: np.zeros(f.size, np.float32) for f in manifest.contract.state},
        instruction="open the drawer",
        stamp_ns=0,
    )
