"""Settings that every run of reinforcement learning has."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1_ros.errors import ConfigError
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator

VALIDATION_SEED = 9_000
"""Scenes from here to 9999 measure progress; training draws from those below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """What a run improves, what it may cost, how it is measured and where it leaves its files."""

    bundle: str
    """Bundle to start from: a directory, or the name of a shipped one."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    task: str
    """Task to improve."""
    out: Path
    """Bundle to write."""
    minutes: float = 60.0
    """Time budget [min]; 0: none. Of several budgets, the first to be used up ends training."""
    iterations: int = 0
    """Budget of iterations; 0: none."""
    env_steps: int = 0
    """Budget of control steps of training; 0: none."""
    workers: int = 12
    """Environments at work side by side."""
    threads: int = 1
    """Threads of inference during rollouts; the update uses all cores."""
    eval_every: int = 12
    """Iterations between two measurements of the policy without noise."""
    eval_episodes: int = 100
    """Episodes of each."""
    keep: str = "best"
    """Weights that become the bundle: the ``best`` measured, or the ``last``, unless the policy
    diverged."""
    run: Path | None = None
    """Folder of checkpoints and logs; if not given, beside the bundle: ``<out>-run``."""
    resume: bool = True
    """Go on from the run folder's checkpoint if there is one."""
    seed: int = 0
    """Seeds scenes, noise and batches."""
    export: bool = True
    """Export prefix.onnx and denoise.onnx at the end."""
    json: Path | None = None
    """Write the final figures here."""

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        if self.keep not in ("best", "last"):
            raise ConfigError(f"keep is {self.keep!r}, expected 'best' or 'last'")
        find_simulator(self.robot)
        require_at_least(self, 1, "workers", "threads", "eval_every", "eval_episodes")
        require_at_least(self, 0, "minutes", "iterations", "env_steps", "seed")
        if not (self.minutes or self.iterations or self.env_steps):
            raise ConfigError("without minutes, iterations and env_steps training would never end")
        if self.eval_episodes > 10_000 - VALIDATION_SEED:
            raise ConfigError(f"eval_episodes is {self.eval_episodes}, expected at most 1000")


def require_at_least(config: Any, least: int, *names: str) -> None:
    """Raise ConfigError unless these fields are finite and at least ``least``."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= least):
            raise ConfigError(f"{name} is {value}, expected at least {least}")


def require_positive(config: Any, *names: str) -> None:
    """Raise ConfigError unless these fields are finite and more than 0."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value}, expected more than 0")
