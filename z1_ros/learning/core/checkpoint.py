"""The checkpoint of a training run: one file, without pickled data, from which a run continues.

All training loops of ``learning/`` use this class. A run that was killed and resumed gives the same
results as a run without interruption.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from z1_ros.errors import TrainingError
from z1_ros.learning.core.ema import WeightAverage
from z1_ros.models.checkpoint.loading import assign, read_facts, read_tensors, write_tensors

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's moments of a parameter."""

Groups = dict[str, dict[str, Tensor]]
"""Tensors by kind and name; their name in the file is ``kind.name``."""


class TrainingCheckpoint:
    """Trained weights, their average, the optimiser's state and a run's counters.

    The checkpoint does not contain weights that are not trained: the initial bundle has them.
    """

    def __init__(
        self,
        path: Path,
        trained: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        average: WeightAverage,
        fingerprint: Mapping[str, Any],
    ):
        """Set up; nothing is read or written yet.

        ``fingerprint`` contains all settings that influence the results of the run, as JSON data; a
        checkpoint with another fingerprint is refused.
        """
        self.path = path
        self._trained = trained
        self._optimizer = optimizer
        self._average = average
        self.fingerprint = json.loads(json.dumps(fingerprint))

    def save(self, facts: Mapping[str, Any], extra: Groups | None = None) -> None:
        """Write the file atomically, with counters and further tensors."""
        groups = {"model": self._trained, "ema": self._average.tensors, **(extra or {})}
        tensors = {f"{kind}.{n}": t for kind, named in groups.items() for n, t in named.items()}
        steps = 0
        for name, parameter in self._trained.items():
            if held := self._optimizer.state.get(parameter):
                tensors |= {f"{moment}.{name}": held[moment] for moment in MOMENTS}
                steps = max(steps, int(held["step"]))
        made_with = {"fingerprint": self.fingerprint, "optimizer_steps": steps}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(self.path, tensors, dict(facts) | made_with)

    def load(self) -> tuple[dict[str, Any], Groups]:
        """Restore weights, average and optimiser; return the counters and all tensors by kind.

        Raises:
            TrainingError: The checkpoint was made with other settings.
            CheckpointError: The checkpoint is unreadable or does not fit.
        """
        facts: dict[str, Any] = dict(read_facts(self.path))
        refuse_other_settings(self.path, facts.pop("fingerprint", {}), self.fingerprint)
        groups: Groups = {}
        for key, tensor in read_tensors(self.path).items():
            kind, _, name = key.partition(".")
            groups.setdefault(kind, {})[name] = tensor
        assign(self._trained, groups.get("model", {}), str(self.path))
        if self._average.tensors:
            assign(self._average.tensors, groups.get("ema", {}), str(self.path))
        if steps := facts.pop("optimizer_steps", 0):
            for name, parameter in self._trained.items():
                if name not in groups.get(MOMENTS[0], {}):
                    continue  # the parameter never had a gradient
                # A fused optimiser counts its steps on the GPU.
                at = parameter.device if parameter.device.type == "cuda" else None
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(steps), device=at),
                    **{m: groups[m][name].to(parameter.device) for m in MOMENTS},
                }
        return facts, groups


def refuse_other_settings(path: Path, theirs: Any, ours: Any) -> None:
    """Raise TrainingError, naming the first setting that differs, unless both are equal."""
    then, now = _flat(theirs), _flat(ours)
    for name in now | then:
        if then.get(name) != now.get(name):
            raise TrainingError(
                f"{path} was made with {name} = {then.get(name)!r}, now it is {now.get(name)!r}; "
                "choose another folder, or pass --no-resume to begin again"
            )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    parts: dict[str, Any] = {}
    for key, part in value.items():
        parts |= _flat(part, f"{name}.{key}" if name else str(key))
    return parts
