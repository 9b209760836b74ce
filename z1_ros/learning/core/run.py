"""A run of reinforcement learning on disk: budget, log, checkpoints, best weights, the bundle.

It knows nothing of how the policy learns. GRPO and privileged distillation each have a loop of
their own that asks it whether the budget is used up and tells it what came of an iteration.
"""

import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from z1_ros.errors import CheckpointError, Diverged
from z1_ros.files import write_json
from z1_ros.learning.core.checkpoint import Groups, TrainingCheckpoint
from z1_ros.learning.core.ema import WeightAverage
from z1_ros.learning.core.lora import plain_weights
from z1_ros.learning.core.run_config import RunConfig
from z1_ros.learning.core.run_log import CHECKPOINT, LOG, TENSORBOARD, RunLog
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.writer import write_result
from z1_ros.models.checkpoint.loading import read_facts, read_tensors, write_tensors
from z1_ros.models.network.pi05 import Pi05

BEST = "best.safetensors"
PREFIX_GRAPH = "prefix"


@dataclass(slots=True)
class Counters:
    """What a run has spent and reached."""

    iteration: int = 0
    """Iterations done."""
    elapsed_s: float = 0.0
    """Time spent in them [s]."""
    env_steps: int = 0
    """Control steps of training."""
    best_success: float = -1.0
    """Best success rate of an evaluation; -1 before the first."""
    best_iteration: int = 0
    """Iteration before which it was evaluated."""


class Extra(Protocol):
    """What a method keeps in a checkpoint beside the policy."""

    def begin(self) -> None:
        """Remove what an earlier run left in the folder."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return counters, ready for JSON."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return tensors by ``kind.name``."""
        ...

    def load(self, facts: Mapping[str, Any], groups: Groups, iteration: int) -> None:
        """Take both back; ``iteration`` is the next one."""
        ...

    def saved(self, iteration: int) -> None:
        """Tidy up after a checkpoint that counts ``iteration`` iterations as done."""
        ...


class TrainingRun:
    """One run: its folder, its counters and the weights that it trains."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        network: Pi05,
        optimizer: torch.optim.Optimizer,
        fingerprint: Mapping[str, Any],
        *,
        average_decay: float = 0.0,
        extra: Extra | None = None,
    ):
        """Begin at iteration 0.

        Args:
            folder: Of checkpoints and logs.
            config: Budgets.
            network: What is trained: its parameters that require a gradient.
            optimizer: Over these.
            fingerprint: Everything that shapes the numbers; a checkpoint of another is refused.
            average_decay: Of ``average``; 0: the average is the weights themselves.
            extra: What the method keeps beside the policy.
        """
        self.folder = folder
        self.config = config
        self.counters = Counters()
        self.log = RunLog(folder)
        self._network = network
        self._trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.average = WeightAverage(self._trained, average_decay, warmup=1)
        self._checkpoint = TrainingCheckpoint(
            folder / CHECKPOINT, self._trained, optimizer, self.average, fingerprint
        )
        self._extra = extra

    @property
    def best_path(self) -> Path:
        """File of the best weights."""
        return self.folder / BEST

    @property
    def finished(self) -> bool:
        """Whether one of the budgets is used up."""
        config, spent = self.config, self.counters
        pairs = (
            (spent.elapsed_s, 60 * config.minutes),
            (spent.iteration, config.iterations),
            (spent.env_steps, config.env_steps),
        )
        return any(used >= budget > 0 for used, budget in pairs)

    @property
    def facts(self) -> dict[str, Any]:
        """Counters, ready for JSON."""
        own = {name: getattr(self.counters, name) for name in Counters.__slots__}
        return own | (self._extra.facts() if self._extra else {})

    def start(self, command: str, name: str) -> None:
        """Continue from the folder's checkpoint, or begin anew, and say so.

        Args:
            command: What the user called.
            name: Of the bundle that training starts from.

        Raises:
            TrainingError: The checkpoint was made with other settings.
            CheckpointError: It is unreadable or does not fit.
        """
        config = self.config
        self.log.say(f"{command}: {config.task} in {config.robot}, from {name} to {config.out}")
        self.log.say(f"checkpoints and log: {self.folder}; budget: {self._budget()}")
        if config.resume and self._checkpoint.path.exists():
            self._resume()
            self.log.say(f"continues after iteration {self.counters.iteration}")
            return
        self._clear()
        self.log.say(
            f"{config.workers} environment workers are starting; the first evaluation, of "
            f"{config.eval_episodes} episodes, comes next"
        )

    def _budget(self) -> str:
        config = self.config
        parts = (
            (config.minutes, f"{config.minutes:g} min"),
            (config.iterations, f"{config.iterations} iterations"),
            (config.env_steps, f"{config.env_steps} control steps"),
        )
        return " or ".join(text for value, text in parts if value)

    def _clear(self) -> None:
        """Remove what an earlier run left in the folder."""
        for name in (CHECKPOINT, BEST, LOG):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / TENSORBOARD, ignore_errors=True)
        if self._extra:
            self._extra.begin()

    def _resume(self) -> None:
        facts, groups = self._checkpoint.load()
        try:
            for name in Counters.__slots__:
                setattr(self.counters, name, facts[name])
            if self._extra:
                self._extra.load(facts, groups, self.counters.iteration)
        except KeyError as error:
            raise CheckpointError(
                f"{self._checkpoint.path} is no checkpoint of this command: it lacks {error}"
            ) from error
        if self.best_path.exists():
            self._recall_best()

    def _recall_best(self) -> None:
        """Recall what the best weights reached: an evaluation may be later than a checkpoint."""
        facts = read_facts(self.best_path)
        for name in ("best_success", "best_iteration"):
            if name not in facts:
                raise CheckpointError(f"{self.best_path} is damaged: it lacks {name}")
            setattr(self.counters, name, facts[name])

    @contextmanager
    def one_iteration(self) -> Iterator[dict[str, Any]]:
        """Give the metrics of an iteration to be filled; then count it, log it and save.

        Raises:
            Diverged: The policy did; the checkpoint is never of a policy that diverged.
        """
        began, number = time.perf_counter(), self.counters.iteration
        metrics: dict[str, Any] = {"iteration": number}
        try:
            yield metrics
        except Diverged as error:
            if len(metrics) > 1:
                self.write(metrics)
            raise Diverged(f"the policy diverged at iteration {number}: {error}") from error
        self.counters.iteration += 1
        self.counters.elapsed_s += time.perf_counter() - began
        self.write(metrics)
        self.save()

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Log metrics with what the run has spent."""
        spent = {name: getattr(self.counters, name) for name in ("env_steps", "elapsed_s")}
        self.log.write({**metrics, **spent}, self.remaining())

    def remaining(self) -> str:
        """Return in words how long the run will still take; empty if nothing tells."""
        config, spent = self.config, self.counters
        estimates = [60 * config.minutes - spent.elapsed_s] if config.minutes else []
        for used, budget in (
            (spent.iteration, config.iterations),
            (spent.env_steps, config.env_steps),
        ):
            if budget and used:
                estimates.append((budget - used) * spent.elapsed_s / used)
        if not estimates:
            return ""
        left_s = max(0.0, min(estimates))
        return f"{left_s / 60:.0f} min left" if left_s >= 60 else f"{left_s:.0f} s left"

    def note_success(self, success: float) -> None:
        """Keep the weights that were evaluated if they are the best so far."""
        if success >= self.counters.best_success:
            self.counters.best_success = success
            self.counters.best_iteration = self.counters.iteration
            write_tensors(self.best_path, self._trained, self.facts)

    def forget_best(self) -> None:
        """Let the next weights that are evaluated be the best."""
        self.counters.best_success = -1.0

    def load_best(self) -> None:
        """Put the best weights that were evaluated into the network."""
        if self.best_path.exists():
            self._checkpoint.put_weights(read_tensors(self.best_path), self.best_path)
            self._recall_best()

    def save(self) -> None:
        """Write the checkpoint."""
        extra = self._extra.tensors() if self._extra else {}
        self._checkpoint.save(self.facts, extra)
        if self._extra:
            self._extra.saved(self.counters.iteration)

    def write_bundle(self, command: str, start: Bundle, *, frozen_vlm: bool) -> Bundle:
        """Write the network as a bundle.

        Args:
            command: What the user called.
            start: Bundle that training began from.
            frozen_vlm: The VLM's graph is the start's own, to the bit.
        """
        config = self.config
        kept = config.export and frozen_vlm and f"{PREFIX_GRAPH}.onnx" in start.manifest.files
        origin = made_by(command, self.facts | self._checkpoint.fingerprint, start)
        graphs = [PREFIX_GRAPH] if kept else []
        weights = plain_weights(self._network)
        return write_result(start, weights, config.out, origin, graphs, export=config.export)

    def finish(
        self, command: str, start: Bundle, diverged: Diverged | None, *, frozen_vlm: bool
    ) -> dict[str, Any]:
        """Write the best weights as a bundle and the final metrics; return these.

        Raises:
            Diverged: If it was given: the bundle is written all the same.
        """
        self.load_best()
        metrics = self.facts | {"task": self.config.task}
        bundle = self.write_bundle(command, start, frozen_vlm=frozen_vlm)
        if self.config.json:
            write_json(self.config.json, metrics)
        if diverged:
            raise Diverged(
                f"{diverged}. The best weights, success {self.counters.best_success:.2f} at "
                f"iteration {self.counters.best_iteration}, are written to {bundle.path}; try a "
                "lower learning_rate"
            )
        progress = self.log.progress(self.counters.best_success)
        self.log.say(f"{progress}written to {bundle.path}")
        return metrics


def made_by(command: str, facts: dict[str, Any], start: Bundle) -> dict[str, Any]:
    """Return what the new bundle's manifest says of its making, the run's ``facts`` among it."""
    return {
        "command": shlex.join([command, *sys.argv[1:]]),
        "init": {
            "name": start.manifest.name,
            "sha256": start.sha256,
            "expert": start_expert(start, facts["task"]),
        },
        "z1": facts,
        "versions": {name: version(name) for name in ("torch", "numpy", "mujoco", "transformers")}
        | {"python": platform.python_version()},
    }


def start_expert(bundle: Bundle, task: str) -> str:
    """Return the task expert of a bundle that training a task begins from, "" for its own."""
    return task if task in bundle.manifest.experts else ""


def open_tensorboard(folder: Path, stack: ExitStack) -> Any:
    """Return a TensorBoard writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return stack.enter_context(SummaryWriter(str(folder / TENSORBOARD)))
