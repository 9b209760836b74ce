"""Teachers, and what they practise, for the tests of teaching."""

from dataclasses import replace

import numpy as np
import torch
from support.inline_worker import InlineWorker
from support.reach_env import ReachEnv
from support.tiny_bundle import TINY

from z1_ros.learning.distill.config import CloneConfig, DaggerConfig, TeacherConfig
from z1_ros.learning.distill.dagger import Watcher, WatchJob
from z1_ros.learning.distill.numpy_teacher import Practice
from z1_ros.learning.distill.teacher import Critic, Teacher, clone, first_noise
from z1_ros.learning.rollout.env_pool import EnvPool
from z1_ros.learning.rollout.env_worker import EnvWorker, Request
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.bundle.manifest import WEIGHTS
from z1_ros.models.checkpoint.loading import load_network
from z1_ros.specs import PANDA

DIMS = PANDA.action_dim
HOLD = 4
CLONE = CloneConfig(watch_episodes=12, clone_steps=40, clone_batch_size=32)
PRACTICE = TeacherConfig(
    practice=4, check_every=2, check_episodes=6, scenes=4, tries=2, hold=HOLD, batch_size=64
)
LESSON = DaggerConfig(episodes=4, window=2, steps=3, lesson_batch_size=8)


def made_teacher(seed=0, inputs=4, sigma=0.1):
    torch.manual_seed(seed)
    limit = np.ones(DIMS)
    return Teacher(inputs, -limit, limit, first_noise(PANDA, sigma))


def straight_teacher():
    """A teacher that goes towards the square: trained, as it is quicker than by hand."""
    teacher, critic = made_teacher(), Critic(4)
    random = np.random.default_rng(0)
    truth = random.uniform(-1, 1, (4000, 4)).astype(np.float32)
    action = np.zeros((4000, DIMS), np.float32)
    action[:, :2] = np.clip(truth[:, 2:] * 2.5, -1, 1)
    config = replace(CLONE, clone_steps=800, clone_batch_size=256, dropout=0.0)
    clone(teacher, critic, [(truth, action)], PANDA, config, 0)
    return teacher


def inline(count=4):
    return EnvPool([InlineWorker() for _ in range(count)])


def practice(teacher, seed=3, tries=2, noise=True):
    keys = tuple((0, seed, j) for j in range(tries))
    return Practice(teacher=teacher.plain, seed=seed, keys=keys, hold=HOLD, noise=noise)


def practised(teacher, scenes=16, tries=4, first=0, noise=True):
    worker = EnvWorker(ReachEnv)
    tasks = [practice(teacher, first + i, tries, noise) for i in range(scenes)]
    return [worker.handle(Request(practice=task)).practised for task in tasks]


def watcher(bundle, pool, seed=0):
    network = load_network(bundle.file(WEIGHTS), TINY).eval().requires_grad_(False)
    return Watcher(pool, Sampler(network, bundle, PANDA, seed))


def jobs(count=6):
    return [WatchJob((1, i), 50 + i) for i in range(count)]


def told(episodes):
    return [(e.success, e.chunks, [t.tobytes() for t in e.truths]) for e in episodes]
