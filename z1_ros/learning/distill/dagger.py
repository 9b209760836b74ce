"""DAgger: relabelled samples of each round, and the episodes of the policy that they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from z1_ros.errors import CheckpointError
from z1_ros.learning.core.feature_store import FeatureStore
from z1_ros.learning.distill.numpy_teacher import Relabel
from z1_ros.learning.distill.worker import PrivilegedReply, PrivilegedRequest
from z1_ros.learning.rollout.collector import Collector, Group, GroupJob, Move, Turn
from z1_ros.learning.rollout.env_worker import Reply
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.checkpoint.loading import read_tensors, write_tensors
from z1_ros.models.network.pi05 import Prefix

_COLUMNS = ("k", "v", "valid", "chunk", "chunk_valid")
"""Tensors of a file: prefix features, the teacher's actions and which of them were executed."""


class DaggerSamples:
    """DAgger samples: prefix features of the policy's observations, and the teacher's chunks.

    Features are stored in half precision: an observation of the kitchen takes 80 KB.
    """

    def __init__(self) -> None:
        self.features = FeatureStore(dtype=torch.float16)
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.features)

    def observe(self, prefix: Prefix, at: int) -> int:
        """Store the encoded observation at index ``at`` of a batch; return its sample number."""
        number = len(self.features)
        self.features.put(number, prefix, at)
        return number

    def label(self, number: int, chunk: Tensor, valid: np.ndarray) -> None:
        """Set a sample's label: normalised actions (H, action_dim), whether each was executed."""
        self._labels[number] = chunk, torch.from_numpy(valid)

    @property
    def label_steps(self) -> int:
        """Number of control steps that were simulated to compute the labels."""
        return int(sum(valid.sum() for _, valid in self._labels.values()))

    def take(self, number: int) -> tuple[Tensor, ...]:
        """Return a sample: k, v and validity of the features, chunk (H, action_dim), validity."""
        return *self.features.row(number), *self._labels[number]

    def tensors(self) -> dict[str, Tensor]:
        """Return all samples as tensors to write."""
        if not len(self):
            return {}
        columns = zip(*(self.take(row) for row in range(len(self))), strict=True)
        return {name: torch.stack(column) for name, column in zip(_COLUMNS, columns, strict=True)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "DaggerSamples":
        """Return the samples in tensors that ``tensors`` returned."""
        samples = cls()
        if tensors:
            k, v, valid, chunks, chunk_valid = (tensors[name] for name in _COLUMNS)
            prefix = Prefix(k.movedim(0, 1), v.movedim(0, 1), valid)
            for row, label in enumerate(zip(chunks, chunk_valid, strict=True)):
                samples.features.put(row, prefix, row)
                samples._labels[row] = label
        return samples


class DaggerDataset:
    """Samples of the last rounds; each round has its own file.

    A round's file is written before the checkpoint that counts the round as done. If a run is
    killed between the two, the repeated round overwrites the file.
    """

    def __init__(self, folder: Path, window: int):
        """Start empty; ``window`` is the number of rounds that are kept."""
        self._folder = folder
        self._window = window
        self._rounds: dict[int, DaggerSamples] = {}

    def __len__(self) -> int:
        return sum(len(samples) for samples in self._rounds.values())

    def add(self, number: int, samples: DaggerSamples) -> None:
        """Store the samples of a round; remove rounds before the window from memory."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._file(number), samples.tensors())
        self._rounds[number] = samples
        for old in [n for n in self._rounds if n <= number - self._window]:
            del self._rounds[old]

    def forget_files(self, before: int) -> None:
        """Remove files of rounds that are outside the window when round ``before`` begins."""
        for path in self._folder.glob("round-*.safetensors"):
            if int(path.stem.removeprefix("round-")) < before - self._window:
                path.unlink()

    def load(self, first: int, end: int) -> None:
        """Read the rounds from ``first`` to before ``end`` that are inside the window.

        Raises CheckpointError if a file is missing or unreadable.
        """
        for number in range(max(first, end - self._window), end):
            path = self._file(number)
            if not path.exists():
                raise CheckpointError(
                    f"{path} is missing, so the run cannot continue; pass --no-resume to begin anew"
                )
            self._rounds[number] = DaggerSamples.from_tensors(read_tensors(path))

    def clear(self) -> None:
        """Remove the files of an earlier run."""
        for path in self._folder.glob("round-*.safetensors"):
            path.unlink()

    def draw(self, count: int, random: torch.Generator) -> tuple[Prefix, Tensor, Tensor]:
        """Draw B samples with replacement: prefix, chunks (B, H, action_dim), validity (B, H)."""
        every = [(samples, i) for samples in self._rounds.values() for i in range(len(samples))]
        at = torch.randint(len(every), (count,), generator=random).tolist()
        taken = (every[i][0].take(every[i][1]) for i in at)
        k, v, valid, chunks, chunk_valid = zip(*taken, strict=True)
        prefix = Prefix(torch.stack(k, 1).float(), torch.stack(v, 1).float(), torch.stack(valid))
        return prefix, torch.stack(chunks), torch.stack(chunk_valid)

    def _file(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}.safetensors"


@dataclass(slots=True)
class Episode:
    """An episode of the policy, with its privileged states."""

    privileged: list[np.ndarray] = field(default_factory=list)
    """Privileged state (n,) before each executed action."""
    actions: list[np.ndarray] = field(default_factory=list)
    """Executed actions, each (action_dim,)."""
    starts: list[tuple[int, bytes]] = field(default_factory=list)
    """Number of control steps so far and snapshot, after each chunk except the last."""
    success: bool = False


def record_episodes(
    collector: Collector, sampler: Sampler, jobs: Sequence[GroupJob]
) -> list[Episode]:
    """Run episodes and record privileged states, actions and snapshots."""
    episodes = {job.key: Episode() for job in jobs}

    def act(turns: Sequence[Turn]) -> list[Move]:
        chunks, _ = _follow(sampler, turns)
        request = partial(PrivilegedRequest, record=True)
        return [Move(chunk, None, request, snapshot=True) for chunk in chunks]

    def note(turn: Turn, move: Move, reply: Reply) -> None:
        assert isinstance(reply, PrivilegedReply) and reply.step and reply.privileged is not None
        episode = episodes[turn.job.key]
        episode.privileged += list(reply.privileged)
        episode.actions += list(move.actions[: len(reply.privileged)])
        if reply.snapshot:
            episode.starts.append((reply.step.steps, reply.snapshot))

    for group in collector.run(jobs, act, note=note):
        episodes[group.job.key].success = bool(group.success[0])
    return list(episodes.values())


def relabel_episodes(
    collector: Collector, sampler: Sampler, jobs: Sequence[GroupJob], wanted: Relabel
) -> tuple[list[Group], DaggerSamples]:
    """Run episodes and turn every state into a sample; its label is the teacher's chunk."""
    samples = DaggerSamples()

    def act(turns: Sequence[Turn]) -> list[Move]:
        chunks, prefix = _follow(sampler, turns)
        request = partial(PrivilegedRequest, relabel=wanted)
        return [
            Move(chunk, samples.observe(prefix, at), request) for at, chunk in enumerate(chunks)
        ]

    def note(turn: Turn, move: Move, reply: Reply) -> None:
        assert isinstance(reply, PrivilegedReply) and reply.relabelled is not None
        chunk, valid = reply.relabelled
        samples.label(move.chunk, sampler.normalized(chunk), valid)

    return collector.run(jobs, act, note=note), samples


def _follow(sampler: Sampler, turns: Sequence[Turn]) -> tuple[list[np.ndarray], Prefix]:
    """Return the actions to execute at each turn, clipped to the robot's limits, and the prefix."""
    keys = [(*turn.job.key, turn.chunk) for turn in turns]
    chunks, prefix = sampler.follow([turn.observation for turn in turns], keys)
    steps = sampler.manifest.replan_steps
    return [np.clip(chunk[:steps], *sampler.limits) for chunk in chunks], prefix
