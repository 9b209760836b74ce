"""Where a run of teaching stands, on disk: ``TrainState``, the teacher and the lessons."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from z1_ros.learning.core.train_state import TrainState
from z1_ros.learning.distill.ppo import TeacherUpdate
from z1_ros.learning.distill.replay import Replay
from z1_ros.models.network.pi05 import Pi05

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TeachState(TrainState):
    """The same, with teacher and critic; lessons are in files of their own."""

    def __init__(
        self,
        run: Path,
        network: Pi05,
        optimizer: torch.optim.Optimizer,
        identity: dict[str, Any],
        ema: float,
        replay: Replay,
        make_mentor: Callable[[int], TeacherUpdate],
    ):
        """Begin at iteration 0, without a teacher.

        Args:
            run: Folder of checkpoints.
            network: Weights of the policy.
            optimizer: Its state is saved too.
            identity: Everything that shapes the numbers; a checkpoint of another is refused.
            ema: Decay of ``average``, by step.
            replay: The lessons.
            make_mentor: Makes a new teacher with critic and optimiser for truths of so many
                numbers.
        """
        super().__init__(run, network, optimizer, identity, ema)
        self._replay = replay
        self._make_mentor = make_mentor
        self.mentor: TeacherUpdate | None = None
        self.best_teacher: dict[str, Tensor] = {}
        """Weights of the teacher that did best when examined."""
        self.starts: list[tuple[int, bytes]] = []
        """Where the policy got when it was watched: control steps and snapshot."""
        self.exams: list[tuple[int, bytes]] = []
        """The same, kept for examinations."""
        self.teacher_success = -1.0
        """What it achieved."""
        self.lessons_from = 0
        """First iteration that is a round of lessons; 0: the teacher is still learning."""

    @property
    def facts(self) -> dict[str, Any]:
        """Counters, ready for JSON."""
        return super().facts | {
            "teacher_success": self.teacher_success,
            "lessons_from": self.lessons_from,
        }

    def note_teacher(self, success: float) -> None:
        """Keep the teacher as it is now if it is the best so far."""
        assert self.mentor is not None
        if success >= self.teacher_success:
            self.teacher_success = success
            state = self.mentor.teacher.state_dict()
            self.best_teacher = {name: tensor.clone() for name, tensor in state.items()}

    def begin(self) -> None:
        """Remove what an earlier run left in the folder."""
        super().begin()
        self._replay.clear()

    def save(self) -> None:
        """Write everything that going on needs; what it needs no more is removed after that."""
        super().save()
        self._replay.forget_files(self.iteration)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint; return whether there was one."""
        if not super().resume():
            return False
        if self.lessons_from:
            self._replay.load(self.lessons_from, self.iteration)
        return True

    def _companions(self) -> dict[str, Tensor]:
        if self.mentor is None:
            return {}
        tensors = {f"best_teacher.{name}": t for name, t in self.best_teacher.items()}
        for kind, starts in (("starts", self.starts), ("exams", self.exams)):
            tensors |= {f"{kind}.{name}": tensor for name, tensor in _packed(starts).items()}
        modules = _modules(self.mentor)
        tensors |= {f"mentor.{name}": t for name, t in modules.state_dict().items()}
        for name, parameter in modules.named_parameters():
            held = self.mentor.optimizer.state.get(parameter, {})
            tensors |= {f"mentor_{moment}.{name}": held[moment] for moment in _MOMENTS if held}
        return tensors

    def _take_companions(self, groups: dict[str, dict[str, Tensor]]) -> None:
        if "mentor" not in groups:
            return
        self.best_teacher = groups["best_teacher"]
        self.starts, self.exams = _unpacked(groups["starts"]), _unpacked(groups["exams"])
        self.mentor = self._make_mentor(len(self.best_teacher["mean"]))
        modules = _modules(self.mentor)
        modules.load_state_dict(groups["mentor"])
        for name, parameter in modules.named_parameters():
            if name in groups.get("mentor_step", {}):
                self.mentor.optimizer.state[parameter] = {
                    moment: groups[f"mentor_{moment}"][name] for moment in _MOMENTS
                }


def _packed(starts: Sequence[tuple[int, bytes]]) -> dict[str, Tensor]:
    """Return snapshots as tensors."""
    return {
        "steps": torch.tensor([steps for steps, _ in starts], dtype=torch.int64),
        "sizes": torch.tensor([len(data) for _, data in starts], dtype=torch.int64),
        "bytes": torch.from_numpy(
            np.frombuffer(b"".join(data for _, data in starts), np.uint8).copy()
        ),
    }


def _unpacked(tensors: Mapping[str, Tensor]) -> list[tuple[int, bytes]]:
    data, ends = tensors["bytes"].numpy().tobytes(), tensors["sizes"].cumsum(0).tolist()
    firsts = [0, *ends[:-1]]
    return [
        (steps, data[first:end])
        for steps, first, end in zip(tensors["steps"].tolist(), firsts, ends, strict=True)
    ]


def _modules(mentor: TeacherUpdate) -> nn.ModuleDict:
    return nn.ModuleDict({"teacher": mentor.teacher, "critic": mentor.critic})
