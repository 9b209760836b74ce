"""Privileged teachers, their rollouts, and short runs of z1-teach's loop on a small world."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from support.inline_worker import inline_pool
from support.reach_env import ReachEnv

from z1_ros.learning.distill.config import CloneConfig, DaggerConfig, DistillConfig, TeacherConfig
from z1_ros.learning.distill.numpy_teacher import Relabel, TeacherRequest
from z1_ros.learning.distill.teacher import Critic, Teacher, clone, first_noise
from z1_ros.learning.distill.train import Distillation
from z1_ros.learning.distill.worker import PrivilegedWorker
from z1_ros.learning.rollout.collector import episode_jobs
from z1_ros.specs import PANDA

DIMS = PANDA.action_dim
HOLD = 4
CLONE = CloneConfig(clone_episodes=12, clone_steps=40, clone_batch_size=32)
TEACHER = TeacherConfig(
    teacher_iterations=4,
    teacher_target=2.0,  # never reached: all iterations are teacher training
    teacher_eval_every=2,
    teacher_eval_episodes=6,
    teacher_starts=4,
    teacher_rollouts=2,
    hold_steps=HOLD,
    batch_size=64,
)
DAGGER = DaggerConfig(dagger_episodes=4, dagger_window=2, dagger_steps=3, dagger_batch_size=8)


def made_teacher(seed=0, inputs=4, sigma=0.1):
    """Return a new teacher."""
    torch.manual_seed(seed)
    limit = np.ones(DIMS)
    return Teacher(inputs, -limit, limit, first_noise(PANDA, sigma))


@cache
def straight_teacher():
    """Return a teacher that goes towards the square: trained, as it is quicker than by hand."""
    teacher, critic = made_teacher(), Critic(4)
    random = np.random.default_rng(0)
    states = random.uniform(-1, 1, (4000, 4)).astype(np.float32)
    action = np.zeros((4000, DIMS), np.float32)
    action[:, :2] = np.clip(states[:, 2:] * 2.5, -1, 1)
    config = replace(CLONE, clone_steps=800, clone_batch_size=256, clone_dropout=0.0)
    clone(teacher, critic, [(states, action)], PANDA, config, 0)
    return teacher


def privileged_pool(count=4):
    """Return workers without processes that read privileged state."""
    return inline_pool(count, PrivilegedWorker)


def open_privileged_inline(maker, count):
    """Open a pool of them, whatever the maker makes."""
    return privileged_pool(count)


def rollout_request(teacher, seed=3, rollouts=2, noise=True):
    """Return a request for rollouts from the start of a scene."""
    keys = tuple((0, seed, j) for j in range(rollouts))
    begin = seed
    return TeacherRequest(
        teacher=teacher.to_numpy, begin=begin, keys=keys, hold_steps=HOLD, noise=noise
    )


def rolled_out(teacher, scenes=16, rollouts=4, first=0, noise=True):
    """Return a teacher's rollouts in several scenes."""
    worker = PrivilegedWorker(ReachEnv)
    requests = [rollout_request(teacher, first + i, rollouts, noise) for i in range(scenes)]
    return [worker.handle(request) for request in requests]


def relabel_by(teacher, horizon):
    """Return what asks for a teacher's chunk."""
    return Relabel(teacher=teacher.to_numpy, horizon=horizon, hold_steps=HOLD)


def jobs(count=6):
    """Return episodes of the policy."""
    return episode_jobs(1, range(50, 50 + count))


def distill_config(tmp_path, **changes):
    """Return settings of nine iterations: one collects, four train the teacher, four are DAgger."""
    given = {
        "bundle": "tiny",
        "task": "OpenDrawer",
        "out": tmp_path / "out",
        "minutes": 0.0,
        "iterations": 9,
        "eval_every": 2,
        "eval_episodes": 4,
        "clone": CLONE,
        "teacher": TEACHER,
        "dagger": DAGGER,
    }
    return DistillConfig(**(given | changes))


def distillation(config, bundle, folder):
    """Return a run that has not begun; ``support.grpo_runs.run_through`` trains it."""
    folder.mkdir(exist_ok=True)
    return Distillation(config, bundle, privileged_pool(), folder)
