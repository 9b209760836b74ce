"""A teacher: advice leaves no trace, practice is what the environment does, and improves it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.reach_env import PX, ReachEnv
from support.teaching import (
    CLONE,
    DIMS,
    HOLD,
    PRACTICE,
    inline,
    jobs,
    made_teacher,
    practice,
    practised,
    straight_teacher,
    told,
    watcher,
)
from support.tiny_bundle import TINY, write_tiny_bundle

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.learning.distill.numpy_teacher import Advice, Practice
from z1_ros.learning.distill.ppo import TeacherUpdate, advantages, passed
from z1_ros.learning.distill.teacher import Critic, clone, decisions
from z1_ros.learning.rollout.env_pool import local_workers
from z1_ros.learning.rollout.env_worker import Begin, EnvWorker, Request
from z1_ros.specs import PANDA


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def test_a_teacher_says_the_same_with_and_without_torch():
    teacher = made_teacher()
    teacher.mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    teacher.scale.copy_(torch.tensor([0.5, 1.0, 2.0, 0.1]))
    truth = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    mine = np.stack([teacher.plain.mean(t) for t in truth])
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(mine), teacher(torch.from_numpy(truth)))
        action = mine + 0.05
        expected = teacher.log_prob(torch.from_numpy(truth), torch.from_numpy(action))
    found = [teacher.plain.log_prob(a, m) for a, m in zip(action, mine, strict=True)]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-4)


def test_what_is_practised_is_what_the_environment_does():
    teacher = made_teacher()
    result = EnvWorker(ReachEnv).handle(Request(practice=practice(teacher))).practised
    again = EnvWorker(ReachEnv).handle(Request(practice=practice(teacher))).practised
    assert np.array_equal(result.truth, again.truth)
    assert result.lengths.sum() == len(result.truth) == len(result.action)
    first, second = np.split(result.truth, [result.lengths[0]])
    assert np.array_equal(first[0], second[0])  # one scene, from its start
    assert not np.array_equal(first[1], second[1])  # with noise of its own
    worker, at = EnvWorker(ReachEnv), 0
    for length, steps, success in zip(result.lengths, result.steps, result.success, strict=True):
        worker.handle(Request(begin=Begin(seed=3)))
        for i in range(at, at + length):
            actions = np.repeat(teacher.plain.limited(result.action[i])[None], HOLD, 0)
            reply = worker.handle(Request(actions=actions, truth=True))
            assert np.array_equal(reply.truth[0], result.truth[i])
        assert reply.step.done and (reply.step.steps, reply.step.success) == (steps, success)
        at += length


def test_nothing_goes_on_after_practice():
    worker = EnvWorker(ReachEnv)
    worker.handle(Request(practice=practice(made_teacher())))
    with pytest.raises(ConfigError, match="must begin one"):
        worker.handle(Request(actions=np.zeros((1, DIMS), np.float32)))


def test_a_teacher_without_noise_does_the_same_each_time():
    first, second = (practised(made_teacher(), 1, 2, noise=False)[0] for _ in range(2))
    assert np.array_equal(first.truth, second.truth)
    assert first.lengths[0] == first.lengths[1]


def test_advice_is_what_the_teacher_would_do_and_leaves_no_trace():
    teacher = made_teacher()
    advice = Advice(teacher=teacher.plain, horizon=10, hold=HOLD)
    start = np.full((4, DIMS), 0.3, np.float32)
    worker, plain, alone = (EnvWorker(ReachEnv) for _ in range(3))
    for one in (worker, plain, alone):
        one.handle(Request(begin=Begin(seed=3), actions=start))
    reply = worker.handle(Request(advice=advice, actions=start, truth=True))
    chunk, valid = reply.advised
    assert chunk.shape == (10, DIMS) and valid.all()
    without = plain.handle(Request(actions=start, truth=True))
    assert np.array_equal(reply.truth, without.truth)
    for at in (0, 4, 8):
        held = chunk[at : at + HOLD]
        assert (held == held[0]).all()
        now = alone.handle(Request(actions=held, truth=True)).truth[0]
        np.testing.assert_allclose(held[0], teacher.plain.limited(teacher.plain.mean(now)))


def test_advice_ends_where_the_episode_would():
    teacher = straight_teacher()
    worker = EnvWorker(ReachEnv)
    worker.handle(Request(begin=Begin(seed=3)))
    advice = Advice(teacher=teacher.plain, horizon=60, hold=HOLD)
    chunk, valid = worker.handle(Request(advice=advice)).advised
    end = int(valid.sum())
    assert 0 < end < 60 and valid[:end].all() and not chunk[end:].any()


def test_truth_is_told_before_each_executed_action():
    worker = EnvWorker(ReachEnv)
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (5, DIMS)).astype(np.float32)
    told = worker.handle(Request(begin=Begin(seed=3), actions=actions, truth=True))
    plain = EnvWorker(ReachEnv)
    whole = plain.handle(Request(begin=Begin(seed=3), actions=actions))
    assert told.step == whole.step and told.truth.shape == (5, 4)
    np.testing.assert_allclose(
        told.truth[1:, :2] - told.truth[:-1, :2], 0.1 * actions[:-1, :2], 1e-4
    )


def test_an_environment_that_knows_no_truth_says_so():
    class Plain:
        embodiment = PANDA

        def reset(self, seed):
            pass

    request = Request(begin=Begin(seed=0), actions=np.zeros((1, DIMS), np.float32), truth=True)
    with pytest.raises(ConfigError, match="only what a robot sees"):
        EnvWorker(Plain).handle(request)


# -- how it learns


def test_decisions_are_the_mean_of_what_follows():
    truths = [np.full(2, i, np.float32) for i in range(5)]
    actions = [np.full(3, i, np.float32) for i in range(5)]
    found, means = decisions(truths, actions, 2)
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert means[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.0]


def test_a_clone_does_what_it_saw_and_changes_no_random_state():
    random = np.random.default_rng(0)
    shown = []
    for _ in range(20):
        truth = random.normal(size=(30, 4)).astype(np.float32)
        shown.append((truth, np.tile(np.tanh(truth[:, :1]), (1, DIMS)).astype(np.float32)))
    teacher, critic = made_teacher(), Critic(4)
    state = torch.random.get_rng_state()
    config = replace(CLONE, clone_steps=600, clone_batch_size=128)
    figures = clone(teacher, critic, shown, PANDA, config, 0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert figures["clone_held_out_loss"] < 0.2 and figures["clone_decisions"] == 540
    again = made_teacher()
    clone(again, Critic(4), shown, PANDA, config, 0)
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_advantages_by_hand():
    values = np.array([0.5, 0.8, 0.4, 0.2])
    found = advantages(values, np.array([2, 2]), np.array([True, False]), 0.9, 0.5)
    last = 1 - 0.8
    first = 0.9 * 0.8 - 0.5 + 0.9 * 0.5 * last
    lost = 0 - 0.2
    before = 0.9 * 0.2 - 0.4 + 0.9 * 0.5 * lost
    np.testing.assert_allclose(found, [first, last, before, lost])


def test_time_goes_on_from_where_practice_began():
    late = EnvWorker(ReachEnv)
    late.handle(Request(begin=Begin(seed=3)))
    start = late.handle(Request(actions=np.zeros((8, DIMS), np.float32), snapshot=True)).snapshot
    teacher = made_teacher()
    keys = ((0, 1), (0, 2))
    task = Practice(teacher=teacher.plain, start=start, begun=8, keys=keys, hold=HOLD)
    found = late.handle(Request(practice=task)).practised
    assert (found.steps <= ReachEnv.horizon - 8).all() and found.begun == 8
    time = passed([found, practised(teacher, 1)[0]], HOLD)
    assert time[: found.lengths[0]].tolist() == list(range(2, 2 + found.lengths[0]))
    assert time[found.lengths.sum()] == 0
    from_start = late.handle(Request(practice=practice(teacher))).practised
    assert np.array_equal(found.truth[0], from_start.truth[0])  # nothing had moved meanwhile


def test_with_decay_one_an_advantage_is_the_discounted_success_less_the_value():
    random = np.random.default_rng(0)
    lengths, success = np.array([5, 3]), np.array([True, False])
    values = random.random(8)
    found = advantages(values, lengths, success, 0.9, 1.0)
    left = np.concatenate([np.arange(n)[::-1] for n in lengths])
    np.testing.assert_allclose(found + values, 0.9**left * np.repeat(success, lengths))


def test_practice_improves_a_teacher():
    teacher = made_teacher(sigma=0.3)
    update = TeacherUpdate(
        teacher, Critic(4), replace(PRACTICE, learning_rate=1e-3, batch_size=256, max_kl=0.1)
    )
    rates = []
    for i in range(12):
        found = practised(teacher, 32, 4, first=100 * i)
        figures = update.run(found, i, policy=i > 0)
        rates.append(figures["practice_success"])
        assert figures["log_prob_mismatch"] < 1e-3
    assert np.mean(rates[-3:]) > np.mean(rates[:3]) + 0.15


def test_the_first_update_moves_the_critic_alone():
    teacher, critic = made_teacher(), Critic(4)
    update = TeacherUpdate(teacher, critic, PRACTICE)
    before = [{n: t.clone() for n, t in m.state_dict().items()} for m in (teacher, critic)]
    update.run(practised(teacher), 0, policy=False)
    assert all(torch.equal(t, before[0][n]) for n, t in teacher.state_dict().items())
    assert any(not torch.equal(t, before[1][n]) for n, t in critic.state_dict().items())


def test_practice_of_another_teacher_is_refused():
    teacher = made_teacher()
    found = practised(made_teacher(seed=1))
    with pytest.raises(TrainingError, match="not of the same policy"):
        TeacherUpdate(teacher, Critic(4), PRACTICE).run(found, 0, policy=True)


def test_equal_seeds_give_equal_episodes_on_any_kind_of_lane(bundle):
    one, _ = watcher(bundle, inline()).run(jobs())
    assert told(one) == told(watcher(bundle, inline()).run(jobs())[0])
    assert told(one) != told(watcher(bundle, inline(), seed=1).run(jobs())[0])
    with local_workers(ReachEnv, 4, 3 * PX * PX * 3) as pool:
        assert told(watcher(bundle, pool).run(jobs())[0]) == told(one)


def test_truths_and_actions_go_together(bundle):
    episodes, lessons = watcher(bundle, inline()).run(jobs())
    assert not len(lessons)
    checked = 0
    for episode in episodes:
        assert len(episode.truths) == len(episode.actions)
        moved = np.diff([t[:2] for t in episode.truths], axis=0)
        actions = np.array(episode.actions)[:, :2]
        # Not where the guard slows a jump down, nor at the edge of the world.
        free = np.abs(np.diff(actions, axis=0, prepend=0)).max(1)[:-1] < 1
        free &= np.abs([t[:2] for t in episode.truths[1:]]).max(1) < 1
        np.testing.assert_allclose(moved[free], 0.1 * actions[:-1][free], atol=1e-5)
        checked += free.sum()
    assert checked > 20


def test_every_state_is_a_lesson_of_what_the_teacher_would_do_there(bundle):
    teacher = straight_teacher()
    advice = Advice(teacher=teacher.plain, horizon=TINY.horizon, hold=HOLD)
    made = watcher(bundle, inline(1))
    asked = made._pool._workers[0].asked
    (episode,), lessons = made.run(jobs(1), advice)
    acted = [r for r in asked if r.actions is not None]
    assert len(lessons) == episode.chunks == len(acted)
    worker = EnvWorker(ReachEnv)
    worker.handle(Request(begin=Begin(seed=50)))
    tensors = lessons.tensors
    for i, request in enumerate(acted):
        chunk, valid = worker.handle(request).advised
        assert torch.equal(tensors["valid"][i], torch.from_numpy(valid))
        torch.testing.assert_close(tensors["chunk"][i], made._actor.normalized(chunk))
    assert lessons.steps == int(tensors["valid"].sum())


def test_a_policy_is_normalised_back_and_forth(bundle):
    actor = watcher(bundle, inline(1))._actor
    chunk = np.random.default_rng(0).uniform(-1, 1, (2, TINY.horizon, DIMS)).astype(np.float32)
    back = actor._in_robot_units(actor.normalized(chunk))
    np.testing.assert_allclose(np.stack(back), chunk, atol=1e-6)
    low, high = actor.action_range()
    assert (low == -1).all() and (high == 1).all()
