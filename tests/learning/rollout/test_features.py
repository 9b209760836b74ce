"""What an update needs of the observations of rollouts: kept once, and what the policy saw."""

import pytest
import torch
from support.inline_worker import inline_pool

from z1_ros.learning.rollout.collector import Collector, GroupJob, sampling
from z1_ros.learning.rollout.features import RolloutFeatures
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group


def roll_out(sampler, features, sharing="none", shared_chunks=0, count=1, size=2):
    plan = plan_group(size, sharing, shared_chunks)
    jobs = [GroupJob((7, i), plan, 100 + i) for i in range(count)]
    return Collector(inline_pool()).run(jobs, sampling(sampler, FlowSde(steps=3), features))


@pytest.fixture(scope="module")
def kept(tiny_network, tiny_sampler):
    """Return what gives the prefix of some rows, kept in one way or another."""

    def prefix_of(*, joint, limit_gb):
        features = RolloutFeatures(tiny_network, joint=joint, limit_gb=limit_gb)
        roll_out(tiny_sampler, features)
        return features.prefix_of(torch.tensor([0, 3, 1, 3]))

    return prefix_of


def test_only_what_is_trained_on_is_kept(tiny_network, tiny_sampler):
    features = RolloutFeatures(tiny_network, joint=False)
    groups = roll_out(tiny_sampler, features, "prefix", 3, count=2, size=4)
    for group in groups:
        root, *followers = group.segments
        assert {e.chunk.row for e in root.executed} == {-1}
        assert all(e.chunk.row >= 0 for f in followers for e in f.executed)
    rows = [e.chunk.row for g in groups for s in g.segments for e in s.executed]
    held = [row for row in rows if row >= 0]
    assert sorted(held) == list(range(len(held)))


def test_kept_observations_are_what_the_policy_saw(kept):
    """Features, and inputs to be encoded again, give the same prefix."""
    wanted = kept(joint=False, limit_gb=8.0)
    two_fit = sum(part.nbytes for part in wanted) / 4 * 2.5 / 1e9
    for found in (
        kept(joint=True, limit_gb=8.0),
        kept(joint=False, limit_gb=0.0),
        kept(joint=False, limit_gb=two_fit),
    ):
        for one, two in zip(wanted, found, strict=True):
            torch.testing.assert_close(one, two)


def test_a_row_that_did_not_fit_is_encoded_once_however_often_it_is_asked_for(
    tiny_network, tiny_sampler, monkeypatch
):
    features = RolloutFeatures(tiny_network, joint=False, limit_gb=0.0)
    roll_out(tiny_sampler, features)
    encoded, encode = [], tiny_network.prefix

    def counted(**inputs):
        encoded.append(len(inputs["tokens"]))
        return encode(**inputs)

    monkeypatch.setattr(tiny_network, "prefix", counted)
    found = features.prefix_of(torch.tensor([2, 0, 2, 2]))
    assert encoded == [2] and len(found.valid) == 4
    assert torch.equal(found.k[:, 0], found.k[:, 2]) and torch.equal(found.k[:, 0], found.k[:, 3])


def test_the_next_iteration_begins_with_an_empty_store(tiny_network, tiny_sampler):
    features = RolloutFeatures(tiny_network, joint=False)
    for _ in range(2):
        features.clear()
        (group,) = roll_out(tiny_sampler, features)
        assert min(e.chunk.row for s in group.segments for e in s.executed) == 0
