"""The privileged environment worker: its labels leave no trace, its rollouts are the world's."""

from dataclasses import replace

import numpy as np
import pytest
from support.reach_env import ReachEnv
from support.teaching import (
    DIMS,
    HOLD,
    made_teacher,
    relabel_by,
    rolled_out,
    rollout_request,
    straight_teacher,
)

from z1_ros.errors import ConfigError
from z1_ros.learning.distill.numpy_teacher import TeacherRequest
from z1_ros.learning.distill.worker import PrivilegedRequest, PrivilegedWorker
from z1_ros.learning.rollout.env_worker import EnvWorker, Reply, Request
from z1_ros.specs import PANDA


@pytest.fixture
def worker():
    return PrivilegedWorker(ReachEnv)


def recorded(actions, begin=None):
    return PrivilegedRequest(begin=begin, actions=actions, record=True)


# A teacher's rollouts


def test_a_teachers_rollout_is_what_the_environment_does(worker):
    teacher = made_teacher()
    result = PrivilegedWorker(ReachEnv).handle(rollout_request(teacher))
    again = PrivilegedWorker(ReachEnv).handle(rollout_request(teacher))
    assert np.array_equal(result.privileged, again.privileged)
    assert result.lengths.sum() == len(result.privileged) == len(result.action)
    first, second = np.split(result.privileged, [result.lengths[0]])
    assert np.array_equal(first[0], second[0])  # one scene, from its start
    assert not np.array_equal(first[1], second[1])  # with noise of its own, which its key gives
    request = replace(rollout_request(teacher), keys=((0, 3, 1),))
    assert np.array_equal(worker.handle(request).privileged, second)
    means = [teacher.to_numpy.mean(state) for state in result.privileged]
    wanted = [teacher.to_numpy.log_prob(*each) for each in zip(result.action, means, strict=True)]
    np.testing.assert_allclose(result.log_prob, wanted, rtol=1e-6)
    at = 0
    for length, steps, success in zip(result.lengths, result.steps, result.success, strict=True):
        worker.handle(Request(begin=3))
        for i in range(at, at + length):
            actions = np.repeat(teacher.to_numpy.limited(result.action[i])[None], HOLD, 0)
            reply = worker.handle(recorded(actions))
            assert np.array_equal(reply.privileged[0], result.privileged[i])
        assert reply.step.done and (reply.step.steps, reply.step.success) == (steps, success)
        at += length


def test_nothing_goes_on_after_a_teachers_rollouts(worker):
    worker.handle(rollout_request(made_teacher()))
    with pytest.raises(ConfigError, match="must begin one"):
        worker.handle(Request(actions=np.zeros((1, DIMS), np.float32)))


def test_a_teacher_without_noise_does_the_same_each_time():
    first, second = (rolled_out(made_teacher(), 1, 2, noise=False)[0] for _ in range(2))
    assert np.array_equal(first.privileged, second.privileged)
    assert first.lengths[0] == first.lengths[1]


def test_time_goes_on_from_where_the_rollouts_began(worker):
    worker.handle(Request(begin=3))
    still = Request(actions=np.zeros((8, DIMS), np.float32), snapshot=True)
    start, teacher = worker.handle(still).snapshot, made_teacher()
    found = worker.handle(
        TeacherRequest(
            teacher=teacher.to_numpy,
            begin=start,
            steps_before=8,
            keys=((0, 1), (0, 2)),
            hold_steps=HOLD,
        )
    )
    assert (found.steps <= ReachEnv.horizon - 8).all() and found.steps_before == 8
    from_start = worker.handle(rollout_request(teacher))
    assert np.array_equal(found.privileged[0], from_start.privileged[0])  # nothing had moved


# Its labels


def test_a_label_is_what_the_teacher_would_do_and_leaves_no_trace(worker):
    teacher = made_teacher()
    start = np.full((4, DIMS), 0.3, np.float32)
    plain, alone = (PrivilegedWorker(ReachEnv) for _ in range(2))
    for one in (worker, plain, alone):
        one.handle(Request(begin=3, actions=start))
    reply = worker.handle(
        PrivilegedRequest(relabel=relabel_by(teacher, 10), actions=start, record=True)
    )
    chunk, valid = reply.relabelled
    assert chunk.shape == (10, DIMS) and valid.all()
    without = plain.handle(recorded(start))
    assert without.relabelled is None
    assert np.array_equal(reply.privileged, without.privileged) and reply.step == without.step
    for at in (0, 4, 8):
        held = chunk[at : at + HOLD]
        assert (held == held[0]).all()
        now = alone.handle(recorded(held)).privileged[0]
        wanted = teacher.to_numpy.limited(teacher.to_numpy.mean(now))
        np.testing.assert_allclose(held[0], wanted)


def test_a_label_ends_where_the_episode_would(worker):
    worker.handle(Request(begin=3))
    wanted = PrivilegedRequest(relabel=relabel_by(straight_teacher(), 60))
    chunk, valid = worker.handle(wanted).relabelled
    end = int(valid.sum())
    assert 0 < end < 60 and valid[:end].all() and not chunk[end:].any()
    assert chunk.shape == (60, DIMS) and chunk.dtype == np.float32


# The privileged state


def test_the_state_before_each_executed_action_is_returned(worker):
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (5, DIMS)).astype(np.float32)
    reply = worker.handle(recorded(actions, 3))
    whole = EnvWorker(ReachEnv).handle(Request(begin=3, actions=actions))
    assert reply.step == whole.step and reply.privileged.shape == (5, 4)
    moved = reply.privileged[1:, :2] - reply.privileged[:-1, :2]
    np.testing.assert_allclose(moved, 0.1 * actions[:-1, :2], 1e-4)


def test_states_end_with_the_episode(worker):
    far = np.zeros((ReachEnv.horizon + 5, DIMS), np.float32)
    reply = worker.handle(recorded(far, 3))
    assert reply.step.done and len(reply.privileged) == reply.step.consumed == ReachEnv.horizon


def test_a_plain_request_gets_a_plain_reply(worker):
    reply = worker.handle(Request(begin=3, observe=True))
    assert type(reply) is Reply and reply.observation is not None


def test_to_replay_a_request_asks_for_no_label_and_no_state():
    actions = np.zeros((1, DIMS), np.float32)
    request = PrivilegedRequest(
        begin=1, actions=actions, relabel=relabel_by(made_teacher(), 4), record=True
    )
    assert request.to_replay() == Request(begin=request.begin, actions=actions)


def test_an_environment_without_privileged_state_says_so():
    class Plain:
        embodiment = PANDA

        def reset(self, seed):
            pass

    with pytest.raises(ConfigError, match="only what a robot sees"):
        PrivilegedWorker(Plain).handle(recorded(np.zeros((1, DIMS), np.float32), 0))
