"""The teacher where it simulates: NumPy alone, the numbers of torch."""

import numpy as np
import torch
from support.teaching import DIMS, made_teacher


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
