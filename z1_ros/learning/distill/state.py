"""The part of a distillation checkpoint that does not belong to the policy."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from z1_ros.learning.core.checkpoint import Groups
from z1_ros.learning.core.run import Extra
from z1_ros.learning.distill.dagger import DaggerDataset
from z1_ros.learning.distill.ppo import TeacherUpdate

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
Starts = list[tuple[int, bytes]]
"""States that the policy reached: number of control steps so far and snapshot of each."""


class DistillState(Extra):
    """The teacher, its critic and optimiser, its start states, and the DAgger data set."""

    def __init__(self, dataset: DaggerDataset, make_teacher: Callable[[int], TeacherUpdate]):
        """Start without a teacher; the data set of relabelled samples has its own files.

        ``make_teacher`` makes a new teacher with critic and optimiser, given the dimension of the
        privileged state.
        """
        self.dataset = dataset
        self._make_teacher = make_teacher
        self.teacher: TeacherUpdate | None = None
        self.best_teacher: dict[str, Tensor] = {}
        """Weights of the teacher with the best evaluation so far."""
        self.teacher_success = -1.0
        """Success rate of that teacher; -1 before the first evaluation."""
        self.train_starts: Starts = []
        """Start states for the teacher's training."""
        self.eval_starts: Starts = []
        """Start states for the teacher's evaluations; training does not use them."""
        self.dagger_from = 0
        """First iteration that is a DAgger round; 0: the teacher is still training."""

    def note_teacher(self, success: float) -> None:
        """Keep a copy of the teacher's current weights if ``success`` is the best so far."""
        assert self.teacher is not None
        if success >= self.teacher_success:
            self.teacher_success = success
            state = self.teacher.teacher.state_dict()
            self.best_teacher = {name: tensor.clone() for name, tensor in state.items()}

    def facts(self) -> dict[str, Any]:
        """Return counters, ready for JSON."""
        return {"teacher_success": self.teacher_success, "dagger_from": self.dagger_from}

    def tensors(self) -> Groups:
        """Return the tensors to save, by kind and name."""
        if self.teacher is None:
            return {}
        modules = _modules(self.teacher)
        groups: Groups = {
            "best_teacher": self.best_teacher,
            "train_starts": _packed(self.train_starts),
            "eval_starts": _packed(self.eval_starts),
            "teacher": modules.state_dict(),
        }
        for name, parameter in modules.named_parameters():
            for moment, value in self.teacher.optimizer.state.get(parameter, {}).items():
                groups.setdefault(f"teacher_{moment}", {})[name] = value
        return groups

    def load(self, facts: Mapping[str, Any], groups: Groups, iteration: int) -> None:
        """Restore the state from saved counters and tensors; ``iteration`` is the next one."""
        self.teacher_success = facts["teacher_success"]
        self.dagger_from = facts["dagger_from"]
        if "teacher" in groups:
            self._load_teacher(groups)
        if self.dagger_from:
            self.dataset.load(self.dagger_from, iteration)

    def _load_teacher(self, groups: Groups) -> None:
        self.best_teacher = groups["best_teacher"]
        self.train_starts = _unpacked(groups["train_starts"])
        self.eval_starts = _unpacked(groups["eval_starts"])
        self.teacher = self._make_teacher(len(self.best_teacher["mean"]))
        modules = _modules(self.teacher)
        modules.load_state_dict(groups["teacher"])
        for name, parameter in modules.named_parameters():
            if name in groups.get("teacher_step", {}):
                self.teacher.optimizer.state[parameter] = {
                    moment: groups[f"teacher_{moment}"][name] for moment in _MOMENTS
                }

    def forget_files(self, before: float = math.inf) -> None:
        """Remove files of rounds that are not needed when ``before`` begins; inf: all."""
        self.dataset.forget_files(before)


def _packed(starts: Sequence[tuple[int, bytes]]) -> dict[str, Tensor]:
    """Return snapshots as tensors."""
    data = np.frombuffer(b"".join(snapshot for _, snapshot in starts), np.uint8)
    return {
        "steps": torch.tensor([steps for steps, _ in starts], dtype=torch.int64),
        "sizes": torch.tensor([len(snapshot) for _, snapshot in starts], dtype=torch.int64),
        "bytes": torch.from_numpy(data.copy()),
    }


def _unpacked(tensors: Mapping[str, Tensor]) -> Starts:
    parts = tensors["bytes"].split(tensors["sizes"].tolist())
    steps = tensors["steps"].tolist()
    return [(count, part.numpy().tobytes()) for count, part in zip(steps, parts, strict=True)]


def _modules(update: TeacherUpdate) -> nn.ModuleDict:
    return nn.ModuleDict({"teacher": update.teacher, "critic": update.critic})
