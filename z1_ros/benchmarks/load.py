"""``z1-bench load``: what a bundle costs on disk, in memory and until its first action chunk.

The bundle is loaded in a process of its own, whose peak memory the kernel counts; pages of the
weights file that were mapped and read are part of it.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from z1_ros.benchmarks.report import Report, Row
from z1_ros.errors import BackendUnavailable, ConfigError, Z1Error
from z1_ros.models.bundle.manifest import WEIGHTS, Manifest, load_bundle
from z1_ros.models.network.geometry import preset
from z1_ros.policy.backends import load_policy
from z1_ros.specs import embodiment
from z1_ros.types import Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadBenchConfig:
    """Disk size, load time, peak memory and first chunk of a bundle."""

    bundle: str = ""
    """Bundle to load; one with random weights is made if not given."""
    geometry: Literal["small", "full"] = "full"
    """Sizes of the random bundle; ``full`` is the published π0.5."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the random weights."""
    embodiment: str = "panda_omron"
    """Robot of the random bundle."""
    experts: int = 0
    """Task-wise action experts of the random bundle, beside its base expert."""
    threads: int = 2
    """CPU threads."""
    json: Path | None = None
    """Write the report here."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        embodiment(self.embodiment)
        if not (0 <= self.experts <= 1000 and 1 <= self.threads <= 1000):
            raise ConfigError(
                f"experts is {self.experts} and threads {self.threads}, "
                "expected 0 to 1000 experts and 1 to 1000 threads"
            )


def main(config: LoadBenchConfig) -> dict[str, Any]:
    """Measure, print a table, return the report."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="z1-load-") as folder:
        if config.bundle:
            bundle = load_bundle(config.bundle)
        else:
            made = Path(folder) / f"{config.geometry}-random"
            console.print(f"writing random weights ({config.geometry}, {config.dtype})")
            kind = (config.geometry, config.embodiment, config.dtype, str(config.experts))
            _worker("make", str(made), *kind)
            bundle = load_bundle(made)
        console.print(f"loading {bundle.manifest.name} in a process of its own")
        measured = json.loads(_worker("load", str(bundle.path), str(config.threads)))
        name, size_gb = bundle.manifest.name, bundle.file(WEIGHTS).stat().st_size / 1e9
    quantities = {
        ("weights on disk", "GB"): size_gb,
        ("check and load", "s"): measured["load_s"],
        ("first chunk after that", "s"): measured["chunk_s"],
        ("peak memory", "GiB"): measured["peak_gib"],
    }
    rows = [
        Row(name=name, quantity=quantity, unit=unit, values=[value])
        for (quantity, unit), value in quantities.items()
    ]
    facts = {"threads": config.threads, "chunk shape": measured["chunk_shape"]}
    report = Report(benchmark="z1-bench load", config=config, rows=rows, facts=facts)
    return report.publish(config.json, console)


def _worker(*arguments: str) -> str:
    command = [sys.executable, "-m", __spec__.name, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"the measuring process ended with {done.returncode}; see above")
    return done.stdout


def make(folder: str, geometry: str, robot: str, dtype: str, experts: str) -> None:
    """Write a random bundle."""
    try:
        import z1_ros.models.bundle.random_bundle as random_bundle
    except ImportError as error:
        raise BackendUnavailable(f"a random bundle needs torch ({error})") from error
    random_bundle.write_random_bundle(
        Path(folder),
        preset(geometry),
        embodiment(robot),
        dtype,
        experts=[f"task{i}" for i in range(int(experts))],
    )


def measure(bundle: str, threads: str) -> None:
    """Load a bundle, ask it for one chunk and print what that cost as JSON."""
    began = time.perf_counter()
    policy = load_policy(bundle, threads=int(threads))
    loaded = time.perf_counter()
    chunk = policy.infer(random_observation(policy.manifest))
    cost = {
        "load_s": loaded - began,
        "chunk_s": time.perf_counter() - loaded,
        "chunk_shape": list(chunk.actions.shape),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    sys.stdout.write(json.dumps(cost) + "\n")


def random_observation(manifest: Manifest) -> Observation:
    """Return an observation with everything that a bundle's contract names."""
    random = np.random.default_rng(0)
    shape = (256, 256, 3)
    return Observation(
        images={c: random.integers(0, 256, shape, np.uint8) for c in manifest.contract.cameras},
        state={f.name: np.zeros(f.size, np.float32) for f in manifest.contract.state},
        instruction="open the drawer",
        stamp_ns=0,
    )


if __name__ == "__main__":
    try:
        {"make": make, "load": measure}[sys.argv[1]](*sys.argv[2:])
    except Z1Error as failure:
        raise SystemExit(f"z1-bench load: {failure}") from failure
