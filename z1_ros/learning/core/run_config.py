"""Settings that all reinforcement-learning runs share."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator
from z1_ros.specs import TRAIN_SEED_END

VALIDATION_SEED = 9_000
"""First validation seed: scenes from here to 9999 are for evaluation, scenes below for training."""
Bound = Literal["at least", "more than", "at most", "less than"]
_BOUNDS: dict[Bound, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "more than": operator.gt,
    "at most": operator.le,
    "less than": operator.lt,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Task, budget, evaluation and files of a run."""

    bundle: str
    """Bundle to start from: a directory, or the name of a shipped one."""
    task: str
    """Task to improve."""
    out: Path
    """Bundle to write. Checkpoints and logs go to a folder next to it: ``<out>-run``."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    minutes: float = 60.0
    """Time budget [min]; 0: none. Training ends when the first of its budgets is used up."""
    iterations: int = 0
    """Budget of iterations; 0: none."""
    env_steps: int = 0
    """Budget of control steps of training; 0: none."""
    workers: int = 12
    """Environment workers: processes that each step one environment."""
    eval_every: int = 12
    """Iterations between two evaluations of the policy without exploration noise."""
    eval_episodes: int = 100
    """Episodes of each evaluation."""
    keep: Literal["best", "last"] = "best"
    """Weights that become the bundle: the ``best`` evaluated, or the ``last``. If the policy
    diverges, it is the best."""
    resume: bool = True
    """Continue from the run folder's checkpoint if there is one."""
    seed: int = 0
    """Seed of scenes, noise and batches."""
    export: bool = True
    """Export prefix.onnx and denoise.onnx at the end."""
    json: Path | None = None
    """File to which the final metrics are written."""

    def __post_init__(self) -> None:
        find_simulator(self.robot)
        require(self, "at least", 1, "workers", "eval_every", "eval_episodes")
        require(self, "at least", 0, "minutes", "iterations", "env_steps", "seed")
        if not (self.minutes or self.iterations or self.env_steps):
            raise ConfigError("without minutes, iterations and env_steps training would never end")
        require(self, "at most", TRAIN_SEED_END - VALIDATION_SEED, "eval_episodes")

    def scenes(self, iteration: int, count: int) -> list[int]:
        """Return the training scenes of an iteration's episodes, in random order."""
        seeds = np.random.default_rng([self.seed, iteration]).permutation(VALIDATION_SEED)
        return [int(seeds[i % len(seeds)]) for i in range(count)]

    def batch_seed(self, iteration: int) -> int:
        """Return the seed of an iteration's batches."""
        return self.seed * 1_000_003 + iteration


def require(config: Any, bound: Bound, limit: float, *names: str) -> None:
    """Raise ConfigError unless these fields are finite and within the bound."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and _BOUNDS[bound](value, limit)):
            raise ConfigError(f"{name} is {value}, expected {bound} {limit:g}")
