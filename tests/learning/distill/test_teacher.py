"""A teacher begins by doing what the policy did when it succeeded."""

from dataclasses import replace

import numpy as np
import torch
from support.teaching import CLONE, DIMS, made_teacher

from z1_ros.learning.distill.teacher import Critic, clone, first_noise, held_actions
from z1_ros.specs import PANDA


def test_held_actions_are_the_mean_of_what_follows():
    means = held_actions([np.full(3, i, np.float32) for i in range(5)], 2)
    assert means[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.0]
    assert means.shape == (5, 3) and means.dtype == np.float32


def test_a_clone_does_what_it_saw_and_changes_no_random_state():
    random = np.random.default_rng(0)
    shown = []
    for _ in range(20):
        states = random.normal(size=(30, 4)).astype(np.float32)
        shown.append((states, np.tile(np.tanh(states[:, :1]), (1, DIMS)).astype(np.float32)))
    teacher, critic = made_teacher(), Critic(4)
    state = torch.random.get_rng_state()
    config = replace(CLONE, clone_steps=600, clone_batch_size=128)
    metrics = clone(teacher, critic, shown, PANDA, config, 0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert metrics["clone_held_out_loss"] < 0.2 and metrics["clone_decisions"] == 540
    assert torch.equal(teacher.mean, critic.mean) and torch.equal(teacher.scale, critic.scale)
    again = made_teacher()
    clone(again, Critic(4), shown, PANDA, config, 0)
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_of_few_episodes_none_is_held_out():
    episode = (np.zeros((5, 4), np.float32), np.zeros((5, DIMS), np.float32))
    metrics = clone(made_teacher(), Critic(4), [episode] * 3, PANDA, CLONE, 0)
    assert metrics["clone_decisions"] == 15 and "clone_held_out_loss" not in metrics


def test_its_first_noise_is_smaller_on_rotations_and_larger_on_the_gripper():
    noise = dict(zip(PANDA.action_dims, first_noise(PANDA, 0.1), strict=True))
    rotations = [v for n, v in noise.items() if n.startswith("end_effector_rotation")]
    grippers = [v for n, v in noise.items() if n.startswith("gripper")]
    positions = [v for n, v in noise.items() if n.startswith("end_effector_position")]
    np.testing.assert_allclose(rotations, 0.05)
    np.testing.assert_allclose(grippers, 0.3)
    np.testing.assert_allclose(positions, 0.1)
