"""One environment behind requests and replies, with the guard before it."""

import numpy as np
import pytest
from support.reach_env import ReachEnv

from z1_ros.errors import ConfigError
from z1_ros.learning.rollout.env_worker import EnvWorker, Request
from z1_ros.specs import PANDA

ACTIONS = np.full((4, PANDA.action_dim), 0.3, np.float32)


@pytest.fixture
def worker():
    return EnvWorker(ReachEnv)


def test_actions_before_a_begin_are_refused(worker):
    with pytest.raises(ConfigError, match="must begin one"):
        worker.handle(Request(actions=ACTIONS))


def test_a_reply_holds_what_was_asked_for_and_nothing_else(worker):
    reply = worker.handle(Request(begin=3))
    assert reply.step is None and reply.observation is None and reply.snapshot == b""
    reply = worker.handle(Request(actions=ACTIONS, observe=True, snapshot=True))
    assert reply.step.consumed == 4 and reply.snapshot
    assert reply.observation.stamp_ns == 4 * 50_000_000


def test_a_snapshot_is_where_another_worker_goes_on(worker):
    worker.handle(Request(begin=3))
    snapshot = worker.handle(Request(actions=ACTIONS, snapshot=True)).snapshot
    # The guard limits the change of an action to the one before it; a snapshot begins anew.
    one, other = worker, EnvWorker(ReachEnv)
    again = Request(begin=snapshot, actions=ACTIONS, observe=True)
    first, second = one.handle(again).observation, other.handle(again).observation
    for name, value in first.state.items():
        assert np.array_equal(value, second.state[name])
    for name, image in first.images.items():
        assert np.array_equal(image, second.images[name])


def test_nothing_of_an_episode_that_is_over_is_observed(worker):
    worker.handle(Request(begin=3))
    end = np.tile(ACTIONS[:1] * 0, (ReachEnv.horizon, 1))
    reply = worker.handle(Request(actions=end, observe=True, snapshot=True))
    assert reply.step.done and reply.observation is None and reply.snapshot == b""
    with pytest.raises(ConfigError, match="must begin one"):
        worker.handle(Request(actions=ACTIONS))


def test_actions_pass_the_guard_unless_the_environment_brings_its_own(worker):
    wild = np.full((4, PANDA.action_dim), 50.0, np.float32)
    moved = []
    for one in (worker, EnvWorker(ReachEnv, guard=False)):
        one.env.step = lambda actions, step=one.env.step: moved.append(actions) or step(actions)
        one.handle(Request(begin=3, actions=wild))
    low, high = PANDA.action_limits()
    assert (moved[0] >= low).all() and (moved[0] <= high).all()
    assert np.array_equal(moved[1], wild)


def test_to_replay_a_request_wants_nothing():
    request = Request(begin=3, actions=ACTIONS, observe=True, snapshot=True)
    replayed = request.to_replay()
    assert replayed.begin is request.begin and replayed.actions is request.actions
    assert not replayed.observe and not replayed.snapshot
