"""Files of a reinforcement-learning run: budget, log, checkpoints, best weights and bundle.

This module does not depend on the training method. The loops of GRPO and privileged distillation
query it for the budget and report the metrics of each iteration.
"""

import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from z1_ros.errors import CheckpointError, Diverged
from z1_ros.files import write_json
from z1_ros.learning.core.checkpoint import Groups, TrainingCheckpoint
from z1_ros.learning.core.ema import WeightAverage
from z1_ros.learning.core.lora import plain_weights
from z1_ros.learning.core.run_config import RunConfig
from z1_ros.learning.core.run_log import CHECKPOINT, LOG, TENSORBOARD, RunLog
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.writer import versions, write_result
from z1_ros.models.checkpoint.loading import assign, read_facts, read_tensors, write_tensors
from z1_ros.models.network.pi05 import Pi05

BEST = "best.safetensors"
PREFIX_GRAPH = "prefix"


@dataclass(slots=True)
class Counters:
    """Completed iterations of a run, their time and training control steps, and the best result."""

    iteration: int = 0
    elapsed_s: float = 0.0
    env_steps: int = 0
    best_success: float = -1.0
    """Best success rate of an evaluation; -1 before the first evaluation."""
    best_iteration: int = 0
    """Iteration before which the best weights were evaluated."""


class Extra:
    """State of a training method that is saved in addition to the policy; by default none."""

    def facts(self) -> dict[str, Any]:
        """Return the counters to save, as JSON data."""
        return {}

    def tensors(self) -> Groups:
        """Return the tensors to save, by kind and name."""
        return {}

    def load(self, facts: Mapping[str, Any], groups: Groups, iteration: int) -> None:
        """Restore the state from saved counters and tensors; ``iteration`` is the next one."""

    def forget_files(self, before: float = math.inf) -> None:
        """Remove files that are not needed when iteration ``before`` begins; inf: all."""


class TrainingRun:
    """One run: its folder, its counters and its trained weights."""

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
        """Begin at iteration 0; the network's parameters with ``requires_grad`` are trained.

        ``fingerprint`` contains all settings that influence the results; a checkpoint with another
        one is refused. With ``average_decay`` 0, the weights are not averaged.
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
        self._extra = extra or Extra()
        self.best_path = folder / BEST
        """Path of the file with the best weights."""

    @property
    def finished(self) -> bool:
        """Whether one of the budgets is used up."""
        return any(used >= total for used, total, _ in self._budgets())

    def _budgets(self) -> list[tuple[float, float, str]]:
        """Return used part, total and text of each budget."""
        config, spent = self.config, self.counters
        budgets = (
            (spent.elapsed_s, 60 * config.minutes, f"{config.minutes:g} min"),
            (spent.iteration, config.iterations, f"{config.iterations} iterations"),
            (spent.env_steps, config.env_steps, f"{config.env_steps} control steps"),
        )
        return [budget for budget in budgets if budget[1]]

    @property
    def facts(self) -> dict[str, Any]:
        """All counters, as JSON data."""
        return asdict(self.counters) | self._extra.facts()

    def start(self, command: str, name: str) -> None:
        """Continue from the folder's checkpoint, or begin a new run; print which of the two.

        ``command`` is the command that the user called, ``name`` that of the initial bundle. Raises
        the errors of ``TrainingCheckpoint.load``.
        """
        config = self.config
        self.log.say(f"{command}: {config.task} in {config.robot}, from {name} to {config.out}")
        budget = " or ".join(text for *_, text in self._budgets())
        self.log.say(f"checkpoints and log: {self.folder}; budget: {budget}")
        if config.resume and self._checkpoint.path.exists():
            self._resume()
            self.log.say(f"continues after iteration {self.counters.iteration}")
            return
        self._clear()
        self.log.say(
            f"{config.workers} environment workers are starting; the first evaluation, of "
            f"{config.eval_episodes} episodes, comes next"
        )

    def _clear(self) -> None:
        """Remove files of an earlier run from the folder."""
        for name in (CHECKPOINT, BEST, LOG):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / TENSORBOARD, ignore_errors=True)
        self._extra.forget_files()

    def _resume(self) -> None:
        facts, groups = self._checkpoint.load()
        try:
            for name in Counters.__slots__:
                setattr(self.counters, name, facts[name])
            self._extra.load(facts, groups, self.counters.iteration)
        except KeyError as error:
            raise CheckpointError(
                f"{self._checkpoint.path} is no checkpoint of this command: it lacks {error}"
            ) from error
        if self.best_path.exists():
            self._recall_best()

    def _recall_best(self) -> None:
        """Read the best result from the best weights, which may be newer than the checkpoint."""
        facts = read_facts(self.best_path)
        for name in ("best_success", "best_iteration"):
            if name not in facts:
                raise CheckpointError(f"{self.best_path} is damaged: it lacks {name}")
            setattr(self.counters, name, facts[name])

    @contextmanager
    def one_iteration(self) -> Iterator[dict[str, Any]]:
        """Run one iteration in a ``with`` block, which adds metrics; then count it, log and save.

        If the block raises Diverged, no checkpoint is saved.
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
        """Log metrics, together with the control steps and time that the run has used."""
        spent = {name: getattr(self.counters, name) for name in ("env_steps", "elapsed_s")}
        self.log.write({**metrics, **spent}, self.remaining())

    def remaining(self) -> str:
        """Return a text about the remaining time of the run; empty if it is unknown."""
        elapsed_s = self.counters.elapsed_s
        budgets = self._budgets()
        estimates = [(total - used) * elapsed_s / used for used, total, _ in budgets if used]
        if not estimates:
            return ""
        left_s = max(0.0, min(estimates))
        return f"{left_s / 60:.0f} min left" if left_s >= 60 else f"{left_s:.0f} s left"

    def note_success(self, success: float) -> None:
        """Save the evaluated weights if ``success`` is the best so far."""
        if success >= self.counters.best_success:
            self.counters.best_success = success
            self.counters.best_iteration = self.counters.iteration
            write_tensors(self.best_path, self._trained, self.facts)

    def forget_best(self) -> None:
        """Reset the best success rate: the next evaluated weights become the best."""
        self.counters.best_success = -1.0

    def load_best(self) -> None:
        """Load the best evaluated weights into the network."""
        if self.best_path.exists():
            assign(self._trained, read_tensors(self.best_path), str(self.best_path))
            self._recall_best()

    def save(self) -> None:
        """Write the checkpoint."""
        self._checkpoint.save(self.facts, self._extra.tensors())
        self._extra.forget_files(self.counters.iteration)

    def finish(
        self, command: str, start: Bundle, diverged: Diverged | None, *, frozen_vlm: bool
    ) -> dict[str, Any]:
        """Write the best weights as a bundle, write the final metrics, and return them.

        The graph of a frozen VLM is copied from the initial bundle ``start``. If ``diverged`` is
        given, it is raised after the bundle was written.
        """
        self.load_best()
        config, metrics = self.config, self.facts | {"task": self.config.task}
        kept = config.export and frozen_vlm and f"{PREFIX_GRAPH}.onnx" in start.manifest.files
        origin = made_by(command, self.facts | self._checkpoint.fingerprint, start)
        graphs = [PREFIX_GRAPH] if kept else []
        weights = plain_weights(self._network)
        bundle = write_result(start, weights, config.out, origin, graphs, export=config.export)
        if config.json:
            write_json(config.json, metrics)
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
    """Return the manifest entry about how the new bundle was made, including the run's facts."""
    return {
        "command": shlex.join([command, *sys.argv[1:]]),
        "init": {
            "name": start.manifest.name,
            "sha256": start.sha256,
            "expert": start_expert(start, facts["task"]),
        },
        "z1": facts,
        "versions": versions("torch", "numpy", "mujoco", "transformers"),
    }


def start_expert(bundle: Bundle, task: str) -> str:
    """Return the name of the task expert that training starts from; "": the base expert."""
    return task if task in bundle.manifest.experts else ""


def open_tensorboard(folder: Path, stack: ExitStack) -> Any:
    """Return a TensorBoard writer, or None if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return stack.enter_context(SummaryWriter(str(folder / TENSORBOARD)))
