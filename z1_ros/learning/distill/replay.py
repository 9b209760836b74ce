"""What a teacher taught, round by round, in memory and on disk."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from z1_ros.errors import CheckpointError
from z1_ros.models.checkpoint.loading import read_tensors, write_tensors
from z1_ros.models.network.pi05 import Prefix

_PARTS = ("k", "v", "pad", "chunk", "valid")


class Lessons:
    """States that the policy got into: what it saw, and what a teacher would have done there.

    Keys and values are kept in half the precision: a kitchen's observation takes 80 KB.
    """

    def __init__(self, kept: dict[str, Tensor] | None = None) -> None:
        """Start empty, or from another's ``tensors``."""
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
        self._rows["pad"].append(prefix.valid[at].clone())
        for name in ("chunk", "valid"):
            self._rows[name].append(torch.zeros(0))
        return len(self) - 1

    def learn(self, number: int, chunk: Tensor, valid: np.ndarray) -> None:
        """Say what a teacher would have done.

        Args:
            number: From ``see``.
            chunk: Normalised actions (H, action_dim).
            valid: Which of them happen before the end of the episode (H,) bool.
        """
        self._rows["chunk"][number] = chunk
        self._rows["valid"][number] = torch.from_numpy(valid)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Everything, ready to be written."""
        return {name: torch.stack(rows) for name, rows in self._rows.items()} if len(self) else {}

    @property
    def steps(self) -> int:
        """Control steps that the teacher was tried for."""
        return int(sum(valid.sum() for valid in self._rows["valid"]))

    def take(self, number: int) -> tuple[Prefix, Tensor, Tensor]:
        """Return an encoded observation, its chunk (1, H, action_dim) and what counts (1, H)."""
        k, v, pad, chunk, valid = (self._rows[name][number] for name in _PARTS)
        prefix = Prefix(k.float()[:, None], v.float()[:, None], pad[None])
        return prefix, chunk[None], valid[None]


class Replay:
    """Lessons of the last rounds; each round is a file of its own.

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
        self._rounds: dict[int, Lessons] = {}

    def add(self, number: int, lessons: Lessons) -> None:
        """Keep a round, and forget those before the window."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._file(number), lessons.tensors)
        self._rounds[number] = lessons
        for old in [n for n in self._rounds if n <= number - self._window]:
            del self._rounds[old]

    def forget_files(self, before: int) -> None:
        """Remove files of rounds that the window has left when round ``before`` begins."""
        for path in self._folder.glob("round-*.safetensors"):
            if int(path.stem.removeprefix("round-")) < before - self._window:
                path.unlink()

    def load(self, first: int, end: int) -> None:
        """Read what the window holds of rounds ``first`` … ``end - 1``.

        Raises:
            CheckpointError: A file is missing or unreadable.
        """
        for number in range(max(first, end - self._window), end):
            path = self._file(number)
            if not path.exists():
                raise CheckpointError(
                    f"{path} is missing, so the run cannot go on; pass --no-resume to begin anew"
                )
            self._rounds[number] = Lessons(read_tensors(path))

    def clear(self) -> None:
        """Remove the files that an earlier run left."""
        for path in self._folder.glob("round-*.safetensors"):
            path.unlink()

    def __len__(self) -> int:
        return sum(len(lessons) for lessons in self._rounds.values())

    def draw(self, count: int, random: torch.Generator) -> tuple[Prefix, Tensor, Tensor]:
        """Return encoded observations, chunks (B, H, action_dim) and what counts of them (B, H).

        They are ``count`` lessons, drawn with replacement.
        """
        every = [(lessons, i) for lessons in self._rounds.values() for i in range(len(lessons))]
        at = torch.randint(len(every), (count,), generator=random).tolist()
        prefixes, chunks, valid = zip(*(every[i][0].take(every[i][1]) for i in at), strict=True)
        prefix = Prefix(
            torch.cat([p.k for p in prefixes], 1),
            torch.cat([p.v for p in prefixes], 1),
            torch.cat([p.valid for p in prefixes]),
        )
        return prefix, torch.cat(chunks), torch.cat(valid)

    def _file(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}.safetensors"
