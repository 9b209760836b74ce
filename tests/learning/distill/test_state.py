"""What a distillation keeps in its checkpoint: teacher, critic, optimiser, states to start from."""

import pytest
import torch
from support.teaching import TEACHER, made_teacher, rolled_out

from z1_ros.learning.distill.dagger import DaggerDataset
from z1_ros.learning.distill.ppo import TeacherUpdate
from z1_ros.learning.distill.state import DistillState
from z1_ros.learning.distill.teacher import Critic

STARTS = [(4, b"first"), (8, b""), (12, b"\x00\xff")]


def new_teacher(inputs):
    return TeacherUpdate(made_teacher(inputs=inputs), Critic(inputs), TEACHER)


@pytest.fixture
def made(tmp_path):
    return lambda: DistillState(DaggerDataset(tmp_path, 2), new_teacher)


def groups_of(state):
    """Return a copy of a state's tensors."""
    return {k: {n: t.clone() for n, t in named.items()} for k, named in state.tensors().items()}


def test_the_teacher_that_did_best_is_kept(made):
    state = made()
    state.teacher = new_teacher(4)
    state.note_teacher(0.5)
    best = state.best_teacher["last.bias"].clone()
    with torch.no_grad():
        state.teacher.teacher.last.bias += 1
    state.note_teacher(0.4)
    assert state.teacher_success == 0.5 and torch.equal(state.best_teacher["last.bias"], best)
    state.note_teacher(0.5)
    assert torch.equal(state.best_teacher["last.bias"], best + 1)


def test_before_there_is_a_teacher_there_is_nothing_to_keep(made):
    state, again = made(), made()
    assert state.tensors() == {}
    again.load(state.facts(), {}, 0)
    assert again.teacher is None and again.teacher_success == -1


@pytest.mark.parametrize("trained", [False, True])
def test_everything_comes_back_and_goes_on_alike(made, trained):
    state = made()
    state.teacher = new_teacher(4)
    state.train_starts, state.eval_starts, state.dagger_from = STARTS, STARTS[:1], 0
    state.note_teacher(0.5)
    if trained:
        state.teacher.run(rolled_out(state.teacher.teacher, 4, 2), 0, policy=True)
    again = made()
    again.load(state.facts(), groups_of(state), 3)
    assert again.train_starts == STARTS and again.eval_starts == STARTS[:1]
    assert again.teacher_success == 0.5
    for name, tensor in state.best_teacher.items():
        assert torch.equal(tensor, again.best_teacher[name])
    rollouts = rolled_out(state.teacher.teacher, 4, 2)
    metrics = [one.teacher.run(rollouts, 1, policy=True) for one in (state, again)]
    assert metrics[0] == metrics[1]
    for name, tensor in groups_of(state)["teacher"].items():
        assert torch.equal(tensor, groups_of(again)["teacher"][name]), name
