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
from typing import Any

import numpy as np
from rich.console import Console

from z1_ros.errors import BackendUnavailable, ConfigError, Z1Error, closest
from z1_ros.files import write_json
from z1_ros.models.bundle.manifest import WEIGHTS, Manifest, load_bundle
from z1_ros.models.network.geometry import preset
from z1_ros.policy.backends import load_policy
from z1_ros.specs import embodiment
from z1_ros.types import Observation

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadBenchConfig:
    """Disk size, load time, peak memory and first chunk of a bundle."""

    bundle: str = ""
    """Bundle to load; one with random weights is made if not given."""
    geometry: str = "full"
    """Sizes of the random bundle: ``full`` or ``kitchen``."""
    dtype: str = "bfloat16"
    """Of the random weights: ``bfloat16`` or ``float32``."""
    embodiment: str = "panda_omron"
    """Robot of the random bundle."""
    experts: int = 0
    """Task-wise experts of the random bundle beside its base expert."""
    threads: int = 2
    """CPU threads."""
    json: Path | None = None
    """Write the figures here."""

    def __post_init__(self) -> None:
        """Check choices."""
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}. {closest(self.dtype, DTYPES)}")
        if self.experts < 0:
            raise ConfigError(f"experts is {self.experts}, expected 0 or more")


def main(config: LoadBenchConfig) -> dict[str, Any]:
    """Measure, print, return the figures."""
    with tempfile.TemporaryDirectory(prefix="z1-load-") as folder:
        if config.bundle:
            bundle = load_bundle(config.bundle)
        else:
            made = Path(folder) / f"{config.geometry}-random"
            kind = (config.geometry, config.embodiment, config.dtype, str(config.experts))
            _worker("make", str(made), *kind)
            bundle = load_bundle(made)
        figures = json.loads(_worker("load", str(bundle.path), str(config.threads)))
        figures["weights_gb"] = round(bundle.file(WEIGHTS).stat().st_size / 1e9, 3)
    Console().print(
        f"{bundle.manifest.name}: weights {figures['weights_gb']:.2f} GB on disk, checked and "
        f"loaded in {figures['load_s']:.1f} s, first chunk after {figures['chunk_s']:.1f} s more "
        f"({config.threads} threads), peak memory {figures['peak_gib']:.2f} GiB"
    )
    if config.json:
        write_json(config.json, figures)
    return figures


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
    """Load a bundle, ask it for one chunk and print the figures as JSON."""
    began = time.perf_counter()
    policy = load_policy(bundle, threads=int(threads))
    loaded = time.perf_counter()
    chunk = policy.infer(random_observation(policy.manifest))
    figures = {
        "load_s": round(loaded - began, 2),
        "chunk_s": round(time.perf_counter() - loaded, 2),
        "chunk_shape": list(chunk.actions.shape),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


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
        made = make if sys.argv[1] == "make" else measure
        made(*sys.argv[2:])
    except Z1Error as failure:
        raise SystemExit(f"z1-bench load: {failure}") from failure
