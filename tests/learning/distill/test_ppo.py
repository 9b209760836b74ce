"""PPO of the teacher: advantages by hand, and that its rollouts improve it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.reach_env import ReachEnv
from support.teaching import DIMS, HOLD, TEACHER, made_teacher, rolled_out

from z1_ros.errors import TrainingError
from z1_ros.learning.distill.numpy_teacher import TeacherRequest
from z1_ros.learning.distill.ppo import TeacherUpdate, advantages, decision_times
from z1_ros.learning.distill.teacher import Critic
from z1_ros.learning.distill.worker import PrivilegedWorker
from z1_ros.learning.rollout.env_worker import Request


def test_advantages_by_hand():
    values = np.array([0.5, 0.8, 0.4, 0.2])
    found = advantages(values, np.array([2, 2]), np.array([True, False]), 0.9, 0.5)
    last = 1 - 0.8
    first = 0.9 * 0.8 - 0.5 + 0.9 * 0.5 * last
    lost = 0 - 0.2
    before = 0.9 * 0.2 - 0.4 + 0.9 * 0.5 * lost
    np.testing.assert_allclose(found, [first, last, before, lost])


def test_with_decay_one_an_advantage_is_the_discounted_success_less_the_value():
    random = np.random.default_rng(0)
    lengths, success = np.array([5, 3]), np.array([True, False])
    values = random.random(8)
    found = advantages(values, lengths, success, 0.9, 1.0)
    left = np.concatenate([np.arange(n)[::-1] for n in lengths])
    np.testing.assert_allclose(found + values, 0.9**left * np.repeat(success, lengths))


def test_the_critic_is_told_the_time_of_the_episode():
    worker, teacher = PrivilegedWorker(ReachEnv), made_teacher()
    worker.handle(Request(begin=3))
    still = Request(actions=np.zeros((8, DIMS), np.float32), snapshot=True)
    start = worker.handle(still).snapshot
    late = worker.handle(
        TeacherRequest(
            teacher=teacher.to_numpy,
            begin=start,
            steps_before=8,
            keys=((0, 1), (0, 2)),
            hold_steps=HOLD,
        )
    )
    time = decision_times([late, rolled_out(teacher, 1)[0]], HOLD)
    assert time[: late.lengths[0]].tolist() == list(range(2, 2 + late.lengths[0]))
    assert time[late.lengths.sum()] == 0


def test_its_rollouts_improve_a_teacher():
    teacher = made_teacher(sigma=0.3)
    config = replace(TEACHER, teacher_learning_rate=1e-3, batch_size=256, max_kl=0.1)
    update = TeacherUpdate(teacher, Critic(4), config)
    rates = []
    for i in range(12):
        found = rolled_out(teacher, 32, 4, first=100 * i)
        metrics = update.run(found, i, policy=i > 0)
        rates.append(metrics["teacher_train_success"])
        assert metrics["log_prob_mismatch"] < 1e-3
        assert metrics["explained_variance"] <= 1
    assert np.mean(rates[-3:]) > np.mean(rates[:3]) + 0.15


def test_the_first_update_moves_the_critic_alone():
    teacher, critic = made_teacher(), Critic(4)
    update = TeacherUpdate(teacher, critic, TEACHER)
    before = [{n: t.clone() for n, t in m.state_dict().items()} for m in (teacher, critic)]
    metrics = update.run(rolled_out(teacher), 0, policy=False)
    assert metrics["teacher_kl"] == 0
    assert all(torch.equal(t, before[0][n]) for n, t in teacher.state_dict().items())
    assert any(not torch.equal(t, before[1][n]) for n, t in critic.state_dict().items())


def test_rollouts_of_another_teacher_are_refused():
    found = rolled_out(made_teacher(seed=1))
    with pytest.raises(TrainingError, match="not of the same policy"):
        TeacherUpdate(made_teacher(), Critic(4), TEACHER).run(found, 0, policy=True)
