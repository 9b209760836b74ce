"""DAgger: relabelled samples of each round, and the episodes of the policy that they come from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from z1_ros.errors import CheckpointError
from z1_ros.learning.distill.numpy_teacher import Relabel
from z1_ros.learning.distill.worker import PrivilegedReply, PrivilegedRequest
from z1_ros.learning.rollout.collector import Collector, Group, GroupJob, Move, Turn
from z1_ros.learning.rollout.env_worker import Reply
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.checkpoint.loading import read_tensors, write_tensors
from z1_ros.models.network.pi05 import Prefix

Sample = tuple[Tensor, ...]
"""Tensors of a DAgger sample, one for each name in ``COLUMNS``."""
COLUMNS = ("k", "v", "valid", "chunk", "chunk_valid")
"""An observation's prefix features, k and v in half precision (80 KB in the kitchen); the teacher's
normalised actions (H, action_dim), and which of them were executed (H,)."""


class DaggerDataset:
    """Samples of the last rounds; each round has its own file.

    A round's file is written before the checkpoint that counts the round as done. If a run is
    killed between the two, the repeated round overwrites the file.
    """

    def __init__(self, folder: Path, window: int):
        """Start empty; ``window`` is the number of rounds that are kept."""
        self._folder = folder
        self._window = window
        self._rounds: dict[int, list[Sample]] = {}

    def __len__(self) -> int:
        return sum(len(samples) for samples in self._rounds.values())

    def add(self, number: int, samples: list[Sample]) -> None:
        """Store the samples of a round; remove rounds before the window from memory."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # Without samples, there are no columns.
        columns = zip(COLUMNS, zip(*samples, strict=True), strict=False)
        tensors = {name: torch.stack(column) for name, column in columns}
        write_tensors(self._file(number), tensors)
        self._rounds[number] = samples
        for old in [n for n in self._rounds if n <= number - self._window]:
            del self._rounds[old]

    def forget_files(self, before: float = math.inf) -> None:
        """Remove files of rounds outside the window when round ``before`` begins; inf: all."""
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
            tensors = read_tensors(path)
            self._rounds[number] = list(zip(*(tensors.get(n, ()) for n in COLUMNS), strict=True))

    def draw(self, count: int, random: torch.Generator) -> tuple[Prefix, Tensor, Tensor]:
        """Draw B samples with replacement: prefix, chunks (B, H, action_dim), validity (B, H)."""
        every = [sample for samples in self._rounds.values() for sample in samples]
        at = torch.randint(len(every), (count,), generator=random).tolist()
        k, v, valid, chunks, chunk_valid = zip(*(every[i] for i in at), strict=True)
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
) -> tuple[list[Group], list[Sample]]:
    """Run episodes and turn every state into a sample; its label is the teacher's chunk."""
    samples: list[Sample] = []

    def act(turns: Sequence[Turn]) -> list[Move]:
        chunks, prefix = _follow(sampler, turns)
        request = partial(PrivilegedRequest, relabel=wanted)
        return [
            Move(chunk, (prefix.k[:, at].half(), prefix.v[:, at].half(), prefix.valid[at]), request)
            for at, chunk in enumerate(chunks)
        ]

    def note(turn: Turn, move: Move, reply: Reply) -> None:
        assert isinstance(reply, PrivilegedReply) and reply.relabelled is not None
        chunk, executed = reply.relabelled
        samples.append((*move.chunk, sampler.normalized(chunk), torch.from_numpy(executed)))

    return collector.run(jobs, act, note=note), samples


def _follow(sampler: Sampler, turns: Sequence[Turn]) -> tuple[list[np.ndarray], Prefix]:
    """Return the actions to execute at each turn, clipped to the robot's limits, and the prefix."""
    keys = [(*turn.job.key, turn.chunk) for turn in turns]
    chunks, prefix = sampler.follow([turn.observation for turn in turns], keys)
    steps = sampler.manifest.replan_steps
    return [np.clip(chunk[:steps], *sampler.limits) for chunk in chunks], prefix
