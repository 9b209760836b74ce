"""Rollouts of groups: what is shared runs once, numbers depend on nothing but seeds and weights."""

import os
import signal

import numpy as np
import pytest
import torch
from support.inline_worker import InlineWorker
from support.reach_env import PX, ReachEnv
from support.tiny_bundle import TINY, write_tiny_bundle

from z1_ros.errors import ConfigError, SnapshotMismatch, TrainingError
from z1_ros.learning.rollout.collector import WHOLE_EPISODE, Collector, GroupJob
from z1_ros.learning.rollout.env_pool import EnvPool, WorkerProcess, local_workers
from z1_ros.learning.rollout.env_worker import Begin, EnvWorker, Request
from z1_ros.learning.rollout.features import RolloutFeatures
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.bundle.manifest import WEIGHTS
from z1_ros.models.checkpoint.loading import load_network
from z1_ros.specs import PANDA

SDE = FlowSde(steps=3)
REPLAN_STEPS = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def network(bundle):
    return load_network(bundle.file(WEIGHTS), TINY).eval().requires_grad_(False)


def collector(pool, bundle, network, seed=0):
    return Collector(pool, Sampler(network, bundle, PANDA, seed), REPLAN_STEPS, trace=True)


def inline(bundle, network, workers=4, seed=0):
    return collector(EnvPool([InlineWorker() for _ in range(workers)]), bundle, network, seed)


def jobs(sharing, prefix, count=3, size=4):
    plan = plan_group(size, sharing, prefix)
    return [GroupJob((7, i), plan, 100 + i) for i in range(count)]


def traces(groups):
    return [[rollout.trace for rollout in group.segments] for group in groups]


@pytest.mark.parametrize("sharing", ["none", "prefix", "tree"])
def test_equal_seeds_give_equal_rollouts_on_any_kind_of_lane(bundle, network, sharing):
    one = traces(inline(bundle, network).run(jobs(sharing, 3), SDE))
    assert one == traces(inline(bundle, network).run(jobs(sharing, 3), SDE))
    assert one != traces(inline(bundle, network, seed=1).run(jobs(sharing, 3), SDE))
    with local_workers(ReachEnv, 4, 3 * PX * PX * 3) as pool:
        assert one == traces(collector(pool, bundle, network).run(jobs(sharing, 3), SDE))


def test_a_shared_prefix_is_run_once_and_its_followers_go_on_from_its_end(bundle, network):
    runner = inline(bundle, network)
    (group,) = runner.run(jobs("prefix", 3, count=1), SDE)
    root, *followers = group.segments
    assert len(root.executed) == 3 and not root.over
    assert all(follower.over for follower in followers)
    assert runner.counts.chunks == 3 + sum(len(f.executed) for f in followers)
    assert runner.counts.restores == 4
    assert group.lengths.tolist() == [3 + len(f.executed) for f in followers]
    first = [follower.executed[0].chunk.actions for follower in followers]
    assert not np.array_equal(first[0], first[1])
    # One picture serves the four: each follower's worker draws only after its first chunk.
    renders = 1 + 3 + sum(len(f.executed) - 1 for f in followers)
    assert runner.counts.renders == renders


def test_a_follower_continues_as_if_it_had_run_the_prefix_itself(bundle, network):
    worker = EnvWorker(ReachEnv)
    (group,) = inline(bundle, network).run(jobs("prefix", 3, count=1), SDE)
    whole = [*group.segments[0].executed, *group.segments[2].executed]
    reply = worker.handle(Request(begin=Begin(seed=100), observe=True))
    for executed in whole:
        reply = worker.handle(Request(actions=executed.chunk.actions[:REPLAN_STEPS], observe=True))
        assert reply.step.consumed == executed.steps
    assert reply.step.done and reply.step.success == group.segments[2].success


def test_an_episode_that_ends_in_a_shared_part_ends_for_all_who_share_it(bundle, network):
    plan = plan_group(4, "prefix", 1000)
    (group,) = inline(bundle, network).run([GroupJob((0,), plan, 5)], SDE)
    assert group.segments[0].over
    assert not any(segment.executed for segment in group.segments[1:])
    assert len(set(group.success.tolist())) == 1
    assert group.lengths.tolist() == [len(group.segments[0].executed)] * 4


def test_only_what_is_trained_on_is_kept(bundle, network):
    memory = RolloutFeatures(network, joint=False)
    groups = inline(bundle, network).run(jobs("prefix", 3, count=2), SDE, memory)
    for group in groups:
        root, *followers = group.segments
        assert {e.chunk.row for e in root.executed} == {-1}
        assert all(e.chunk.row >= 0 for f in followers for e in f.executed)
    rows = [e.chunk.row for g in groups for s in g.segments for e in s.executed]
    kept = [row for row in rows if row >= 0]
    assert sorted(kept) == list(range(len(kept)))


def test_kept_observations_are_what_the_policy_saw(bundle, network):
    """Keys and values, and inputs to be encoded again, give the same prefix."""

    def kept(joint, limit_gb):
        memory = RolloutFeatures(network, joint=joint, limit_gb=limit_gb)
        inline(bundle, network).run(jobs("none", 0, count=1, size=2), SDE, memory)
        return memory.prefix_of(torch.tensor([0, 3, 1, 3]))

    wanted = kept(False, 8.0)
    two_fit = sum(part.nbytes for part in wanted) / 4 * 2.5 / 1e9
    for found in (kept(True, 8.0), kept(False, 0.0), kept(False, two_fit)):
        for one, two in zip(wanted, found, strict=True):
            torch.testing.assert_close(one, two)


def test_evaluation_follows_the_flow_without_noise(bundle, network):
    job = [GroupJob((0, 3), WHOLE_EPISODE, 10)]
    (one,) = inline(bundle, network).run(job, None)
    (two,) = inline(bundle, network).run(job, FlowSde(steps=3, noise_level=0.0))
    actions = [[e.chunk for e in one.segments[0].executed]]
    actions.append([e.chunk.actions for e in two.segments[0].executed])
    for follow, act in zip(*actions, strict=True):
        np.testing.assert_allclose(follow, act, atol=1e-4)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_environment_is_replaced_and_nothing_changes(bundle, network, how):
    wanted = traces(inline(bundle, network, workers=2).run(jobs("prefix", 2), SDE))
    workers = [WorkerProcess(ReachEnv, 3 * PX * PX * 3) for _ in range(2)]
    with EnvPool(workers, timeout_s=8.0) as pool:
        collected = collector(pool, bundle, network)
        act, calls = collected._actor.act, []

        def strike(*args):
            calls.append(1)
            if len(calls) == 9:
                os.kill(workers[1].pid, how)
            return act(*args)

        collected._actor.act = strike
        assert traces(collected.run(jobs("prefix", 2), SDE)) == wanted
        assert pool.replaced == 1


class Doomed(ReachEnv):
    """Dies whenever it is to act."""

    def step(self, actions):
        os._exit(3)


def test_an_environment_that_always_dies_ends_the_run_with_a_sentence(bundle, network):
    with (
        EnvPool([WorkerProcess(Doomed, 3 * PX * PX * 3)]) as pool,
        pytest.raises(TrainingError, match="environment 0 was lost 3 times"),
    ):
        collector(pool, bundle, network).run(jobs("none", 0, count=1), SDE)


def test_what_an_environment_refuses_reaches_the_learner():
    with EnvPool([WorkerProcess(ReachEnv, 3 * PX * PX * 3)]) as pool:
        pool.send(0, Request(begin=Begin(snapshot=b"nonsense")))
        with pytest.raises(SnapshotMismatch):
            pool.receive(0)
        pool.send(0, Request(begin=Begin(seed=1), observe=True))
        assert pool.receive(0).observation.images["robot0_eye_in_hand"].shape == (PX, PX, 3)


def test_actions_before_a_begin_are_refused():
    with pytest.raises(ConfigError, match="must begin one"):
        EnvWorker(ReachEnv).handle(Request(actions=np.zeros((1, 7), np.float32)))
