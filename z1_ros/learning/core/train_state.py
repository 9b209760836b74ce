"""Where a run of reinforcement learning stands, on disk: weights, optimiser, best so far."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from z1_ros.errors import TrainingError
from z1_ros.learning.core.ema import WeightAverage
from z1_ros.models.checkpoint.loading import assign, read_facts, read_tensors, write_tensors
from z1_ros.models.network.pi05 import Pi05

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
LOG, TENSORBOARD = "log.jsonl", "tensorboard"


class TrainState:
    """Weights and optimiser of a run, its counters and its folder."""

    def __init__(
        self,
        run: Path,
        network: Pi05,
        optimizer: torch.optim.Optimizer,
        identity: dict[str, Any],
        ema: float = 0.0,
    ):
        """Begin at iteration 0.

        Args:
            run: Folder of checkpoints.
            network: Weights.
            optimizer: Its state is saved too.
            identity: Everything that shapes the numbers; a checkpoint of another is refused.
            ema: Decay of ``average``, by iteration; 0: the average is the weights themselves.
        """
        self._run = run
        self._network = network
        self._optimizer = optimizer
        self._identity = json.loads(json.dumps(identity))
        self._trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.average = WeightAverage(self._trained, ema, warmup=1)
        self.iteration = 0
        self.elapsed_s = 0.0
        self.env_steps = 0
        self.best_success = -1.0
        self.best_iteration = 0

    @property
    def facts(self) -> dict[str, Any]:
        """Counters, ready for JSON."""
        return {
            "iteration": self.iteration,
            "elapsed_s": self.elapsed_s,
            "env_steps": self.env_steps,
            "best_success": self.best_success,
            "best_iteration": self.best_iteration,
        }

    def finished(self, minutes: float, iterations: int, env_steps: int) -> bool:
        """Whether a budget is used up, of those that are not 0."""
        spent = (self.elapsed_s, self.iteration, self.env_steps)
        budgets = (60 * minutes, iterations, env_steps)
        return any(used >= budget > 0 for used, budget in zip(spent, budgets, strict=True))

    @property
    def best_path(self) -> Path:
        """File of the best weights."""
        return self._run / BEST

    def load_best(self) -> None:
        """Put the best weights that were measured into the network."""
        if self.best_path.exists():
            assign(_Trained(self._trained), read_tensors(self.best_path), str(self.best_path))
            self._know_best()

    def _know_best(self) -> None:
        """Recall what the best weights achieved: a measurement may be later than a checkpoint."""
        facts = read_facts(self.best_path)
        self.best_success = facts["best_success"]
        self.best_iteration = facts["best_iteration"]

    def begin(self) -> None:
        """Remove what an earlier run left in the folder."""
        for name in (CHECKPOINT, BEST, LOG):
            (self._run / name).unlink(missing_ok=True)
        shutil.rmtree(self._run / TENSORBOARD, ignore_errors=True)

    def forget_best(self) -> None:
        """Let the next weights that are measured be the best."""
        self.best_success = -1.0

    def note_success(self, success: float) -> None:
        """Keep the weights that were measured if they are the best so far."""
        if success >= self.best_success:
            self.best_success, self.best_iteration = success, self.iteration
            write_tensors(self.best_path, self._trained, self.facts)

    def save(self) -> None:
        """Write everything that going on needs to one file, atomically."""
        tensors = {f"model.{name}": p for name, p in self._trained.items()}
        tensors |= {f"ema.{name}": p for name, p in self.average.tensors.items()}
        for name, parameter in self._trained.items():
            held = self._optimizer.state.get(parameter, {})
            tensors |= {f"{key}.{name}": held[key] for key in ("exp_avg", "exp_avg_sq") if held}
        tensors |= self._companions()
        steps = [int(held["step"]) for held in self._optimizer.state.values()]
        facts = self.facts | {"identity": self._identity, "steps": max(steps, default=0)}
        write_tensors(self._run / CHECKPOINT, tensors, facts)

    def _companions(self) -> dict[str, torch.Tensor]:
        """Return what else is to be saved, by ``kind.name``; a subclass says what."""
        return {}

    def _take_companions(self, groups: dict[str, dict[str, torch.Tensor]]) -> None:
        """Take back what ``_companions`` returned, by kind and name."""

    def resume(self) -> bool:
        """Go on from the folder's checkpoint; return whether there was one.

        Raises:
            TrainingError: It was made with other settings.
            CheckpointError: It is unreadable or does not fit.
        """
        path = self._run / CHECKPOINT
        if not path.exists():
            return False
        facts = read_facts(path)
        theirs = facts.pop("identity", {})
        for name, value in self._identity.items():
            if theirs.get(name) != value:
                raise TrainingError(
                    f"{path} was made with {name} = {theirs.get(name)}, not {value}; choose "
                    "another run folder or pass --no-resume"
                )
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in read_tensors(path).items():
            kind, _, name = key.partition(".")
            groups.setdefault(kind, {})[name] = tensor
        assign(_Trained(self._trained), groups["model"], str(path))
        if self.average.tensors:
            assign(_Trained(self.average.tensors), groups["ema"], str(path))
        self._take_companions(groups)
        steps = facts.pop("steps")
        for name, parameter in self._trained.items():
            if steps:
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(steps)),
                    "exp_avg": groups["exp_avg"][name],
                    "exp_avg_sq": groups["exp_avg_sq"][name],
                }
        for name, value in facts.items():
            setattr(self, name, value)
        if self.best_path.exists():
            self._know_best()
        return True


class _Trained(torch.nn.Module):
    """Looks like a module of the trained weights alone, for ``assign``."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        super().__init__()
        self._tensors = tensors

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        return self._tensors
