"""DAgger: episodes are true to the world, and rounds of samples come back from disk."""

import numpy as np
import pytest
import torch
from support.reach_env import ReachEnv
from support.teaching import jobs, privileged_pool, relabel_by, straight_teacher
from support.tiny_bundle import TINY

from z1_ros.errors import CheckpointError
from z1_ros.learning.distill.dagger import (
    DaggerDataset,
    record_episodes,
    relabel_episodes,
)
from z1_ros.learning.distill.worker import PrivilegedWorker
from z1_ros.learning.rollout.collector import Collector
from z1_ros.learning.rollout.env_pool import local_workers
from z1_ros.learning.rollout.env_worker import Request
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.specs import PANDA


def as_bytes(episodes):
    """Return everything of recorded episodes, comparable bit for bit."""
    return [
        (e.success, [s.tobytes() for s in e.privileged], [a.tobytes() for a in e.actions], e.starts)
        for e in episodes
    ]


def recorded(sampler, pool=None, count=6):
    return record_episodes(Collector(pool or privileged_pool()), sampler, jobs(count))


def test_equal_seeds_give_equal_episodes_on_any_kind_of_worker(
    tiny_bundle, tiny_network, tiny_sampler
):
    one = as_bytes(recorded(tiny_sampler))
    assert one == as_bytes(recorded(tiny_sampler))
    assert one != as_bytes(recorded(Sampler(tiny_network, tiny_bundle, PANDA, 1)))
    with local_workers(ReachEnv, 4, PrivilegedWorker) as pool:
        assert as_bytes(recorded(tiny_sampler, pool)) == one


def test_states_and_actions_go_together(tiny_sampler):
    checked = 0
    for episode in recorded(tiny_sampler):
        assert len(episode.privileged) == len(episode.actions)
        moved = np.diff([s[:2] for s in episode.privileged], axis=0)
        actions = np.array(episode.actions)[:, :2]
        # Not where the guard slows a jump down, nor at the edge of the world.
        free = np.abs(np.diff(actions, axis=0, prepend=0)).max(1)[:-1] < 1
        free &= np.abs([s[:2] for s in episode.privileged[1:]]).max(1) < 1
        np.testing.assert_allclose(moved[free], 0.1 * actions[:-1][free], atol=1e-5)
        checked += free.sum()
    assert checked > 20


def test_each_chunk_but_the_last_leaves_a_state_to_start_from(tiny_sampler):
    replan_steps = tiny_sampler.manifest.replan_steps
    env = ReachEnv()
    env.reset(0)
    for episode in recorded(tiny_sampler):
        steps = [at for at, _ in episode.starts]
        assert steps == list(range(replan_steps, len(episode.actions), replan_steps))
        for at, snapshot in episode.starts:
            env.restore(snapshot)
            assert env.steps == at
            assert np.array_equal(env.privileged_state(), episode.privileged[at])


def test_every_state_is_a_sample_of_what_the_teacher_would_do_there(tiny_sampler):
    pool = privileged_pool(1)
    wanted = relabel_by(straight_teacher(), TINY.horizon)
    (group,), samples = relabel_episodes(Collector(pool), tiny_sampler, jobs(1), wanted)
    acted = [r for r in pool._workers[0].requests if r.actions is not None]
    assert len(samples) == group.lengths[0] == len(acted)
    worker = PrivilegedWorker(ReachEnv)
    worker.handle(Request(begin=50))
    for i, request in enumerate(acted):
        chunk, valid = worker.handle(request).relabelled
        *_, label, counts = samples[i]
        assert torch.equal(counts, torch.from_numpy(valid))
        torch.testing.assert_close(label, tiny_sampler.normalized(chunk))


def test_relabelling_changes_no_episode(tiny_sampler):
    wanted = relabel_by(straight_teacher(), TINY.horizon)
    groups, _ = relabel_episodes(Collector(privileged_pool()), tiny_sampler, jobs(), wanted)
    plain = recorded(tiny_sampler)
    assert [bool(g.success[0]) for g in groups] == [e.success for e in plain]
    steps = [sum(x.steps for x in g.segments[0].executed) for g in groups]
    assert steps == [len(e.actions) for e in plain]


def test_a_sample_holds_what_the_policy_saw(tiny_sampler):
    """In half precision."""
    wanted = relabel_by(straight_teacher(), TINY.horizon)
    _, samples = relabel_episodes(Collector(privileged_pool(1)), tiny_sampler, jobs(1), wanted)
    env = ReachEnv()
    env.reset(50)
    seen, _ = tiny_sampler.encode([env.observe()])
    k, _, valid, *_ = samples[0]
    torch.testing.assert_close(k, seen.k[:, 0].half())
    assert torch.equal(valid, seen.valid[0])


SHAPE = (TINY.horizon, TINY.action_dim)


def made_samples(count, value=0.0):
    """Return samples whose every number is ``value`` and whose label ends at their number."""
    k, v = torch.full((2, 2, 1, 3, 4), value).half()
    valid, chunk = torch.ones(3, dtype=torch.bool), torch.full(SHAPE, value)
    return [(k, v, valid, chunk, torch.arange(TINY.horizon) <= i) for i in range(count)]


def test_samples_come_back_from_their_file(tmp_path):
    samples, dataset = made_samples(3, 0.25), DaggerDataset(tmp_path, 2)
    DaggerDataset(tmp_path, 2).add(1, samples)
    dataset.load(1, 2)
    for one, two in zip(samples, dataset._rounds[1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_round_without_samples_can_be_written_and_read(tmp_path):
    dataset = DaggerDataset(tmp_path, 2)
    dataset.add(1, [])
    again = DaggerDataset(tmp_path, 2)
    again.load(1, 2)
    assert len(again) == 0


def test_only_the_windows_rounds_are_kept(tmp_path):
    dataset = DaggerDataset(tmp_path / "dagger", 2)
    for number in range(5, 9):
        dataset.add(number, made_samples(number))
    assert len(dataset) == 7 + 8
    dataset.forget_files(9)
    names = sorted(path.name for path in (tmp_path / "dagger").iterdir())
    assert names == ["round-00007.safetensors", "round-00008.safetensors"]
    again = DaggerDataset(tmp_path / "dagger", 2)
    again.load(5, 9)
    assert len(again) == 15


def test_a_missing_round_is_named(tmp_path):
    dataset = DaggerDataset(tmp_path, 2)
    dataset.add(5, made_samples(1))
    with pytest.raises(CheckpointError, match=r"round-00006\.safetensors is missing.*--no-resume"):
        DaggerDataset(tmp_path, 2).load(5, 7)


def test_a_new_run_removes_the_rounds_of_an_earlier_one_and_nothing_else(tmp_path):
    dataset = DaggerDataset(tmp_path, 2)
    dataset.add(5, made_samples(1))
    (tmp_path / "notes.txt").touch()
    dataset.forget_files()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_batch_is_drawn_from_all_rounds(tmp_path):
    dataset = DaggerDataset(tmp_path, 2)
    dataset.add(1, made_samples(2, 0.5))
    dataset.add(2, made_samples(2, -0.5))
    prefix, chunks, valid = dataset.draw(64, torch.Generator().manual_seed(0))
    assert prefix.k.shape[1] == len(prefix.valid) == len(chunks) == len(valid) == 64
    assert prefix.k.dtype == torch.float32
    drawn = chunks[:, 0, 0]
    assert set(drawn.tolist()) == {0.5, -0.5}
    assert torch.equal(prefix.k[0, :, 0, 0, 0], drawn)
    again = dataset.draw(64, torch.Generator().manual_seed(0))[1]
    assert torch.equal(again, chunks)
