"""Rollouts of groups: what is shared runs once, numbers depend on nothing but seeds and weights."""

import os
import signal

import numpy as np
import pytest
from support.inline_worker import inline_pool
from support.reach_env import ReachEnv
from support.recorder import Recorder

from z1_ros.errors import TrainingError
from z1_ros.learning.rollout.collector import (
    WHOLE_EPISODE,
    Collector,
    GroupJob,
    Move,
    following,
    sampling,
)
from z1_ros.learning.rollout.env_pool import EnvPool, WorkerProcess, local_workers
from z1_ros.learning.rollout.env_worker import EnvWorker, Request
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.specs import PANDA

SDE = FlowSde(steps=3)
REPLAN_STEPS = 4


def jobs(sharing, shared_chunks, count=3, size=4):
    plan = plan_group(size, sharing, shared_chunks)
    return [GroupJob((7, i), plan, 100 + i) for i in range(count)]


def moves(pool, sampler, wanted):
    """Return every byte of some groups."""
    recorder = Recorder()
    Collector(pool).run(wanted, sampling(sampler, SDE), note=recorder.note)
    return recorder.moves


@pytest.mark.parametrize("sharing", ["none", "prefix", "tree"])
def test_equal_seeds_give_equal_rollouts_on_any_kind_of_worker(
    tiny_bundle, tiny_network, tiny_sampler, sharing
):
    one = moves(inline_pool(), tiny_sampler, jobs(sharing, 3))
    assert len(one) > 3 and one == moves(inline_pool(), tiny_sampler, jobs(sharing, 3))
    other = Sampler(tiny_network, tiny_bundle, PANDA, 1)
    assert one != moves(inline_pool(), other, jobs(sharing, 3))
    with local_workers(ReachEnv, 4) as pool:
        assert one == moves(pool, tiny_sampler, jobs(sharing, 3))


def test_shared_chunks_are_run_once_and_all_who_share_them_go_on_from_their_end(tiny_sampler):
    runner = Collector(inline_pool())
    (group,) = runner.run(jobs("prefix", 3, count=1), sampling(tiny_sampler, SDE))
    root, *followers = group.segments
    assert len(root.executed) == 3 and not root.over
    assert all(follower.over for follower in followers)
    assert runner.counts.chunks == 3 + sum(len(f.executed) for f in followers)
    assert runner.counts.restores == 4
    assert group.lengths.tolist() == [3 + len(f.executed) for f in followers]
    first = [follower.executed[0].chunk.actions for follower in followers]
    assert not np.array_equal(first[0], first[1])
    # One picture serves the four: each follower's worker renders only after its first chunk.
    renders = 1 + 3 + sum(len(f.executed) - 1 for f in followers)
    assert runner.counts.renders == renders


def test_a_rollout_continues_as_if_it_had_run_the_shared_chunks_itself(tiny_sampler):
    worker = EnvWorker(ReachEnv)
    runner = Collector(inline_pool())
    (group,) = runner.run(jobs("prefix", 3, count=1), sampling(tiny_sampler, SDE))
    whole = [*group.segments[0].executed, *group.segments[2].executed]
    reply = worker.handle(Request(begin=100, observe=True))
    for executed in whole:
        reply = worker.handle(Request(actions=executed.chunk.actions[:REPLAN_STEPS], observe=True))
        assert reply.step.consumed == executed.steps
    assert reply.step.done and reply.step.success == group.segments[2].success


def test_an_episode_that_ends_in_a_shared_part_ends_for_all_who_share_it(tiny_sampler):
    plan = plan_group(4, "prefix", 1000)
    runner = Collector(inline_pool())
    (group,) = runner.run([GroupJob((0,), plan, 5)], sampling(tiny_sampler, SDE))
    assert group.segments[0].over
    assert not any(segment.executed for segment in group.segments[1:])
    assert len(set(group.success.tolist())) == 1
    assert group.lengths.tolist() == [len(group.segments[0].executed)] * 4


def test_an_episode_ends_as_a_failure_after_so_many_chunks(tiny_sampler):
    still = [GroupJob((7,), plan_group(4, "prefix", 2), 100)]
    runner = Collector(inline_pool())
    (group,) = runner.run(still, sampling(tiny_sampler, SDE), max_chunks=5)
    assert group.lengths.max() == 5
    assert (group.lengths[~group.success] == 5).all()
    assert runner.counts.env_steps == sum(e.steps for s in group.segments for e in s.executed)


def test_a_policy_may_ask_in_words_of_its_own_and_is_told_what_came_of_it():
    """A privileged teacher's worker, for one, has messages of its own."""
    pool, noted = inline_pool(1), []

    def act(turns):
        actions = np.zeros((2, PANDA.action_dim), np.float32)
        return [Move(actions, "mine", Request, snapshot=True) for _ in turns]

    def note(turn, move, reply):
        noted.append((turn.key, move.chunk, reply.step.consumed, bool(reply.snapshot)))

    (group,) = Collector(pool).run(
        [GroupJob((7,), WHOLE_EPISODE, 100)], act, max_chunks=3, note=note
    )
    assert noted == [((7, 0, chunk), "mine", 2, True) for chunk in range(3)]
    assert [executed.chunk for executed in group.segments[0].executed] == ["mine"] * 3


def test_following_is_the_flow_without_noise(tiny_sampler):
    job = [GroupJob((0, 3), WHOLE_EPISODE, 10)]
    calm = FlowSde(steps=3, noise_level=0.0)
    (one,) = Collector(inline_pool()).run(job, following(tiny_sampler))
    (two,) = Collector(inline_pool()).run(job, sampling(tiny_sampler, calm))
    actions = [[e.chunk for e in one.segments[0].executed]]
    actions.append([e.chunk.actions for e in two.segments[0].executed])
    for follow, act in zip(*actions, strict=True):
        np.testing.assert_allclose(follow, act, atol=1e-4)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_an_environment_that_is_lost_is_replaced_and_nothing_changes(tiny_sampler, how):
    wanted = moves(inline_pool(2), tiny_sampler, jobs("prefix", 2))
    workers = [WorkerProcess(ReachEnv, ReachEnv.image_bytes) for _ in range(2)]
    with EnvPool(workers, timeout_s=8.0) as pool:
        act, calls, recorder = sampling(tiny_sampler, SDE), [], Recorder()

        def strike(turns):
            calls.append(1)
            if len(calls) == 9:
                os.kill(workers[1].pid, how)
            return act(turns)

        Collector(pool).run(jobs("prefix", 2), strike, note=recorder.note)
        assert recorder.moves == wanted
        assert pool.replaced == 1


class Doomed(ReachEnv):
    """Dies whenever it is to act."""

    def step(self, actions):
        os._exit(3)


def test_an_environment_that_always_dies_ends_the_run_with_a_sentence(tiny_sampler):
    with (
        EnvPool([WorkerProcess(Doomed, ReachEnv.image_bytes)]) as pool,
        pytest.raises(TrainingError, match="environment 0 was lost 3 times"),
    ):
        moves(pool, tiny_sampler, jobs("none", 0, count=1))
