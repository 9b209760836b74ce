"""The policy in training: chunks follow from weights, observations and keys alone."""

import numpy as np
import pytest
import torch
from support.reach_env import ReachEnv
from support.tiny_bundle import TINY
from support.tiny_training import made_network

from z1_ros.errors import Diverged
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.policy.backends import load_policy
from z1_ros.policy.vla import flow_noise
from z1_ros.specs import PANDA

DIMS = PANDA.action_dim


@pytest.fixture(scope="module")
def observations():
    found = []
    for seed in (3, 4, 5):
        env = ReachEnv()
        env.reset(seed)
        found.append(env.observe())
    return found


def sampled(sampler, observations, keys, **changes):
    sde = FlowSde(**({"steps": 3} | changes))
    return sampler.sample(sampler.encode(observations)[0], range(len(keys)), keys, sde)


def test_a_chunks_noise_is_its_keys_own_whatever_else_is_in_the_batch(tiny_sampler, observations):
    keys = [(1, 0), (1, 1), (2, 0)]
    for stochastic in ("one", "all"):
        together = sampled(tiny_sampler, observations, keys, stochastic=stochastic)
        (alone,) = sampled(tiny_sampler, observations[1:2], keys[1:2], stochastic=stochastic)
        assert torch.equal(together[1].chain.number, alone.chain.number)
        np.testing.assert_allclose(together[1].actions, alone.actions, atol=1e-5)
    # With all steps stochastic, the first one begins at the chunk's noise.
    start, other = together[1].chain.x[0], together[0].chain.x[0]
    assert torch.equal(start, alone.chain.x[0]) and not torch.equal(start, other)
    assert [chunk.row for chunk in together] == [0, 1, 2]


def test_equal_keys_and_seeds_give_equal_chunks(tiny_sampler, tiny_network, tiny_bundle):
    env = ReachEnv()
    env.reset(3)
    seen = [env.observe()]
    one, two = (sampled(tiny_sampler, seen, [(1, 2)])[0] for _ in range(2))
    assert np.array_equal(one.actions, two.actions) and torch.equal(one.log_probs, two.log_probs)
    other = Sampler(tiny_network, tiny_bundle, PANDA, 1)
    assert not np.array_equal(one.actions, sampled(other, seen, [(1, 2)])[0].actions)


@pytest.mark.parametrize(("stochastic", "steps"), [("one", 1), ("all", 2)])
def test_a_chunk_keeps_its_stochastic_steps(tiny_sampler, observations, stochastic, steps):
    (chunk,) = sampled(
        tiny_sampler, observations[:1], [(0,)], stochastic=stochastic, noise="cps", steps=3
    )
    shape = (steps, TINY.horizon, TINY.action_dim)
    assert chunk.chain.x.shape == chunk.chain.x_next.shape == chunk.log_probs.shape == shape
    assert chunk.chain.number.shape == (steps,)
    assert chunk.end.shape == shape[1:]
    assert chunk.actions.shape == (TINY.horizon, DIMS) and chunk.actions.dtype == np.float32


def test_without_noise_it_is_the_flow_itself(tiny_sampler, observations):
    keys = [(1, i) for i in range(3)]
    follow, _ = tiny_sampler.follow(observations, keys)
    for chunk, wanted in zip(
        sampled(tiny_sampler, observations, keys, noise_level=0.0), follow, strict=True
    ):
        np.testing.assert_allclose(chunk.actions, wanted, atol=1e-4)


def test_from_the_same_noise_it_acts_as_the_deployed_policy(
    tiny_bundle, tiny_network, observations
):
    class DeployedNoise(Sampler):
        def _noise(self, keys, count):
            shape = (count, TINY.horizon, TINY.action_dim)
            return torch.from_numpy(np.stack([flow_noise(*key, shape) for key in keys]))

    sampler = DeployedNoise(tiny_network, tiny_bundle, PANDA, 0)
    policy = load_policy(tiny_bundle.path, backend="torch", threads=1)
    for seed, observation in enumerate(observations):
        policy.reset(seed)
        wanted = policy.infer(observation).actions
        (found,), _ = sampler.follow([observation], [(seed, observation.stamp_ns)])
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_chunk_is_normalised_back_and_forth(tiny_sampler):
    chunk = np.random.default_rng(0).uniform(-1, 1, (2, TINY.horizon, DIMS)).astype(np.float32)
    normalized = tiny_sampler.normalized(chunk)
    assert normalized.shape == (2, TINY.horizon, TINY.action_dim)
    assert not normalized[..., DIMS:].any()
    back = tiny_sampler._in_robot_units(normalized)
    np.testing.assert_allclose(np.stack(back), chunk, atol=1e-6)


def test_the_range_of_actions_is_that_of_the_training_data_within_the_robots_limits(tiny_sampler):
    low, high = tiny_sampler.action_range()
    assert (low == -1).all() and (high == 1).all()


def test_actions_that_are_not_finite_are_divergence(tiny_bundle, observations):
    network = made_network().eval()
    with torch.no_grad():
        network.action_out_proj.bias.fill_(float("nan"))
    sampler = Sampler(network, tiny_bundle, PANDA, 0)
    with pytest.raises(Diverged, match="not finite"):
        sampler.follow(observations[:1], [(0,)])
    with pytest.raises(Diverged, match="not finite"):
        sampled(sampler, observations[:1], [(0,)])
