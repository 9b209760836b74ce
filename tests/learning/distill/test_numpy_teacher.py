"""The teacher where it simulates: NumPy alone, the numbers of torch, rollouts and labels."""

import numpy as np
import pytest
import torch
from support.teaching import DIMS, made_teacher

from z1_ros.learning.distill.numpy_teacher import Relabel, TeacherRequest, relabel, roll_out
from z1_ros.types import Step


class Line:
    """A place on a line that actions move; it ends after some steps, as a success if far out."""

    def __init__(self, horizon=20):
        self.horizon = horizon
        self.begin()

    def begin(self):
        self.place, self.steps, self.executed = np.zeros(4, np.float32), 0, []

    def read(self):
        return self.place.copy()

    def execute(self, actions):
        consumed = 0
        for action in actions:
            self.executed.append(action)
            self.place = self.place + 0.1 * action[:4]
            self.steps, consumed = self.steps + 1, consumed + 1
            if self.steps == self.horizon:
                break
        done = self.steps == self.horizon
        success = done and bool(self.place[0] > 0)
        return Step(steps=self.steps, success=success, done=done, consumed=consumed)


def test_a_teacher_gives_the_same_with_and_without_torch():
    teacher = made_teacher()
    teacher.mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    teacher.scale.copy_(torch.tensor([0.5, 1.0, 2.0, 0.1]))
    states = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    mine = np.stack([teacher.to_numpy.mean(state) for state in states])
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(mine), teacher(torch.from_numpy(states)))
        action = mine + 0.05
        expected = teacher.log_prob(torch.from_numpy(states), torch.from_numpy(action))
    found = [teacher.to_numpy.log_prob(a, m) for a, m in zip(action, mine, strict=True)]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-4)


def test_it_keeps_the_weights_of_its_moment():
    teacher = made_teacher()
    plain = teacher.to_numpy
    before = plain.mean(np.zeros(4, np.float32))
    with torch.no_grad():
        teacher.last.bias += 1
    assert np.array_equal(plain.mean(np.zeros(4, np.float32)), before)
    np.testing.assert_allclose(plain.limited(np.full(DIMS, 7.0)), 1.0)
    assert plain.limited(np.full(DIMS, 7.0)).dtype == np.float32


@pytest.mark.parametrize("noise", [True, False])
def test_rollouts_hold_each_action_and_are_named_by_their_keys(noise):
    line, teacher = Line(), made_teacher().to_numpy

    def rolled_out(*keys):
        request = TeacherRequest(teacher=teacher, keys=keys, hold_steps=4, noise=noise)
        return roll_out(request, line.begin, line.execute, line.read)

    found = rolled_out((0, 1), (0, 2))
    assert found.lengths.tolist() == [5, 5] and found.steps.tolist() == [20, 20]
    held = np.repeat(teacher.limited(found.action[5:]), 4, 0)
    assert np.array_equal(np.stack(line.executed), held)
    first, second = found.action[:5], found.action[5:]
    assert np.array_equal(first, second) != noise
    assert np.array_equal(rolled_out((0, 2)).action, second)
    means = [teacher.mean(state) for state in found.privileged]
    wanted = [teacher.log_prob(a, m) for a, m in zip(found.action, means, strict=True)]
    np.testing.assert_allclose(found.log_prob, wanted, rtol=1e-6)


def test_steps_are_counted_from_where_a_rollout_begins():
    line, teacher = Line(), made_teacher().to_numpy

    def begin():
        line.begin()
        line.steps = 8

    request = TeacherRequest(teacher=teacher, keys=((0,),), hold_steps=4, steps_before=8)
    found = roll_out(request, begin, line.execute, line.read)
    assert (
        found.steps_before == 8 and found.steps.tolist() == [12] and found.lengths.tolist() == [3]
    )


@pytest.mark.parametrize(("horizon", "valid"), [(10, 10), (30, 20)])
def test_a_label_is_what_the_teacher_executes_until_the_end_of_the_episode(horizon, valid):
    line, teacher = Line(), made_teacher().to_numpy
    wanted = Relabel(teacher=teacher, horizon=horizon, hold_steps=4)
    chunk, counts = relabel(wanted, line.execute, line.read)
    assert chunk.shape == (horizon, DIMS) and chunk.dtype == np.float32
    assert counts.sum() == valid and counts[:valid].all() and not chunk[valid:].any()
    again = Line()
    for at in range(0, valid, 4):
        held = chunk[at : min(at + 4, valid)]
        assert (held == held[0]).all()
        np.testing.assert_array_equal(held[0], teacher.limited(teacher.mean(again.read())))
        again.execute(held)
