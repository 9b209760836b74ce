"""What searched episodes taught, round by round, in memory and on disk."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from z1_ros.errors import CheckpointError
from z1_ros.models.checkpoint import read_tensors, write_tensors
from z1_ros.models.pi05 import Prefix
from z1_ros.rl.critic import Outcomes, joined

_PARTS = ("k", "v", "pad", "chunk", "gain")


class Lessons:
    """States that were searched: what the policy saw, and the chunk it should have proposed.

    Keys and values are kept in half the precision: a kitchen's observation takes 80 KB.
    """

    def __init__(self, kept: dict[str, Tensor] | None = None) -> None:
        """Start empty, or from ``tensors``."""
        kept = kept or {}
        self._rows: dict[str, list[Tensor]] = {
            name: list(kept[name]) if name in kept else [] for name in _PARTS
        }

    def __len__(self) -> int:
        return len(self._rows["k"])

    def see(self, prefix: Prefix, at: int) -> int:
        """Keep one encoded observation of a batch; return its number."""
        for name, part in (("k", prefix.k[:, at]), ("v", prefix.v[:, at])):
            self._rows[name].append(part.to(torch.float16, copy=True))
        self._rows["pad"].append(prefix.pad[at].clone())
        for name in ("chunk", "gain"):
            self._rows[name].append(torch.zeros(0))
        return len(self) - 1

    def learn(self, number: int, chunk: Tensor, gain: float) -> None:
        """Say what was found for an observation.

        Args:
            number: From ``see``.
            chunk: Normalised actions (H, action_dim).
            gain: By how much the critic prefers it to the mean proposal (logits).
        """
        self._rows["chunk"][number] = chunk
        self._rows["gain"][number] = torch.tensor(gain)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Everything, ready to be written."""
        return {name: torch.stack(rows) for name, rows in self._rows.items()} if len(self) else {}

    @property
    def gains(self) -> Tensor:
        """(N,) float32."""
        return torch.stack(self._rows["gain"])

    def take(self, numbers: Sequence[int]) -> tuple[Prefix, Tensor]:
        """Return encoded observations and chunks (B, H, action_dim)."""
        k, v, pad, chunk = (
            [self._rows[name][i] for i in numbers] for name in ("k", "v", "pad", "chunk")
        )
        prefix = Prefix(torch.stack(k, 1).float(), torch.stack(v, 1).float(), torch.stack(pad))
        return prefix, torch.stack(chunk)


class Replay:
    """Lessons and outcomes of the last rounds; each round is a file of its own.

    A round's file is written before the checkpoint that counts it as done, so what a killed run
    repeats replaces it.
    """

    def __init__(self, folder: Path, window: int):
        """Start empty.

        Args:
            folder: Where the files are.
            window: Rounds that are kept.
        """
        self._folder = folder
        self._window = window
        self._rounds: dict[int, tuple[Lessons, Outcomes]] = {}

    def add(self, number: int, lessons: Lessons | None, outcomes: Outcomes) -> None:
        """Keep a round, and forget those before the window."""
        lessons = lessons or Lessons()
        tensors = {f"lesson.{name}": tensor for name, tensor in lessons.tensors.items()}
        for part in fields(Outcomes):
            tensors[f"outcome.{part.name}"] = torch.from_numpy(getattr(outcomes, part.name))
        self._folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._file(number), tensors, {"round": number})
        self._rounds[number] = (lessons, outcomes)
        for old in [n for n in self._rounds if n <= number - self._window]:
            del self._rounds[old]

    def forget_files(self, before: int) -> None:
        """Remove files that no checkpoint needs any more: those of rounds the window has left."""
        for path in self._folder.glob("round-*.safetensors"):
            if int(path.stem.removeprefix("round-")) < before - self._window:
                path.unlink()

    def load(self, done: int) -> None:
        """Read what the window holds after ``done`` rounds.

        Raises:
            CheckpointError: A file is missing or unreadable.
        """
        for number in range(max(0, done - self._window), done):
            path = self._file(number)
            if not path.exists():
                raise CheckpointError(
                    f"{path} is missing, so the run cannot go on; pass --no-resume"
                )
            groups: dict[str, dict[str, Tensor]] = {"lesson": {}, "outcome": {}}
            for key, tensor in read_tensors(path).items():
                kind, _, name = key.partition(".")
                groups[kind][name] = tensor
            outcomes = Outcomes(**{n: tensor.numpy() for n, tensor in groups["outcome"].items()})
            self._rounds[number] = (Lessons(groups["lesson"]), outcomes)

    def clear(self) -> None:
        """Remove the files that an earlier run left."""
        for path in self._folder.glob("round-*.safetensors"):
            path.unlink()

    @property
    def outcomes(self) -> Outcomes:
        """All outcomes in the window."""
        return joined([outcomes for _, outcomes in self._rounds.values()])

    def __len__(self) -> int:
        return sum(len(lessons) for lessons, _ in self._rounds.values())

    def draw(self, count: int, random: torch.Generator) -> tuple[Prefix, Tensor]:
        """Return encoded observations and chunks of ``count`` lessons, drawn with replacement."""
        every = [(lessons, i) for lessons, _ in self._rounds.values() for i in range(len(lessons))]
        at = torch.randint(len(every), (count,), generator=random).tolist()
        parts = [every[i][0].take([every[i][1]]) for i in at]
        prefix = Prefix(
            torch.cat([p.k for p, _ in parts], 1),
            torch.cat([p.v for p, _ in parts], 1),
            torch.cat([p.pad for p, _ in parts]),
        )
        return prefix, torch.cat([chunk for _, chunk in parts])

    def _file(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}.safetensors"
