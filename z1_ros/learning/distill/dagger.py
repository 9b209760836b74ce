"""Episodes in which the policy acts as it is deployed, recorded or relabelled for a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from z1_ros.learning.distill.dataset import DaggerSamples
from z1_ros.learning.distill.numpy_teacher import Relabel
from z1_ros.learning.distill.worker import PrivilegedReply, PrivilegedRequest
from z1_ros.learning.rollout.collector import Collector, Group, GroupJob, Move, Turn
from z1_ros.learning.rollout.env_worker import Reply
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.network.pi05 import Prefix


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
