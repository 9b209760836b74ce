"""Settings of privileged distillation."""

from dataclasses import dataclass, field
from typing import Literal

import tyro

from z1_ros.learning.core.run_config import VALIDATION_SEED, RunConfig, require
from z1_ros.specs import TRAIN_SEED_END


@dataclass(frozen=True, kw_only=True, slots=True)
class CloneConfig:
    """Imitation: the teacher first learns from the policy's successful episodes."""

    clone_episodes: int = 320
    """Episodes of the policy that are collected; the teacher imitates the successful ones."""
    clone_steps: int = 2000
    """Optimiser steps of the imitation."""
    clone_batch_size: int = 512
    """Decisions in one optimiser step of the imitation."""
    clone_learning_rate: float = 1e-3
    """Learning rate at the start of the imitation; it falls to 0."""
    clone_dropout: float = 0.2
    """Dropout of hidden units during the imitation only, as the episodes are few."""

    def __post_init__(self) -> None:
        require(self, "at least", 1, "clone_episodes", "clone_steps", "clone_batch_size")
        require(self, "more than", 0, "clone_learning_rate")
        require(self, "at least", 0, "clone_dropout")
        require(self, "less than", 1, "clone_dropout")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Teacher training: the teacher improves by PPO; the task's success is the only reward."""

    teacher_iterations: int = 40
    """Maximum number of iterations of teacher training."""
    teacher_target: float = 0.95
    """Success rate without noise at which teacher training ends: the mean of the rates from the
    start of validation scenes and from states that the policy reached."""
    teacher_eval_every: int = 5
    """Iterations between two evaluations of the teacher."""
    teacher_eval_episodes: int = 200
    """Episodes of each evaluation of the teacher: half begin at the start of a scene, half in a
    state that the policy reached."""
    teacher_starts: int = 64
    """Number of start states of the teacher's rollouts in an iteration."""
    teacher_rollouts: int = 4
    """Number of the teacher's rollouts from each start state."""
    recovery_share: float = 0.5
    """Share of the teacher's start states that the policy reached before, often after a mistake:
    the teacher will label such states. The other start states are the start of a scene."""
    recovery_chunks: int = 20
    """Last action chunk of the policy after which the teacher may take over."""
    hold_steps: int = 4
    """Number of control steps for which the teacher repeats each action."""
    sigma: float = 0.04
    """Initial standard deviation of the teacher's noise on positions, in units of action. The noise
    is half as large on rotations and three times as large on the gripper."""
    gamma: float = 0.99
    """Discount of success, per decision."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation."""
    clip: float = 0.2
    """PPO's clipping of probability ratios, to 1 - clip … 1 + clip."""
    epochs: int = 5
    """Passes of PPO over an iteration's decisions."""
    batch_size: int = 1024
    """Decisions in one optimiser step of PPO."""
    teacher_learning_rate: float = 2e-4
    """Adam's learning rate for the teacher."""
    critic_learning_rate: float = 1e-3
    """Adam's learning rate for the critic."""
    max_kl: float = 0.08
    """KL divergence of a minibatch at which an iteration's update ends."""

    def __post_init__(self) -> None:
        require(self, "at least", 1, "teacher_eval_every", "teacher_starts", "teacher_rollouts")
        require(self, "at least", 1, "hold_steps", "recovery_chunks", "epochs", "batch_size")
        require(self, "at least", 0, "teacher_iterations", "teacher_target", "gae_lambda")
        require(self, "at least", 0, "recovery_share")
        require(self, "at least", 2, "teacher_eval_episodes")
        require(self, "more than", 0, "sigma", "gamma", "clip", "max_kl")
        require(self, "more than", 0, "teacher_learning_rate", "critic_learning_rate")
        require(self, "at most", 1, "gamma", "gae_lambda", "recovery_share")
        require(self, "at most", TRAIN_SEED_END - VALIDATION_SEED, "teacher_eval_episodes")


@dataclass(frozen=True, kw_only=True, slots=True)
class DaggerConfig:
    """DAgger: the policy learns from the teacher's labels, in rounds."""

    dagger_episodes: int = 64
    """Episodes of the policy in a round; the teacher relabels every state in them."""
    dagger_window: int = 40
    """Rounds whose samples are kept, in memory and on disk: about 100 MB a round in the kitchen."""
    dagger_steps: int = 150
    """Optimiser steps of the action expert in a round."""
    dagger_batch_size: int = 64
    """Samples in one optimiser step of the action expert."""
    draws: int = 4
    """(noise, time) draws for each sample."""
    expert_learning_rate: float = 3e-4
    """AdamW's learning rate for the action expert."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.995
    """Decay per optimiser step of the average of the weights. The averaged weights run the episodes
    and become the bundle."""

    def __post_init__(self) -> None:
        require(self, "at least", 1, "dagger_episodes", "dagger_window", "dagger_steps")
        require(self, "at least", 1, "dagger_batch_size", "draws")
        require(self, "at least", 0, "weight_decay", "ema")
        require(self, "more than", 0, "expert_learning_rate", "clip_norm")
        require(self, "less than", 1, "ema")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig(RunConfig):
    """Improve a policy on one task through a privileged teacher, which reads simulator state."""

    iterations: int = 0
    """Budget of iterations: the collection, each teacher update and each DAgger round is one;
    0: none."""
    env_steps: int = 0
    """Budget of control steps, the teacher's included; 0: none."""
    eval_every: int = 10
    """DAgger rounds between two evaluations of the policy."""
    keep: Literal["best", "last"] = "last"
    """Weights that become the bundle: the ``last``, or the ``best`` evaluated."""
    clone: tyro.conf.OmitArgPrefixes[CloneConfig] = field(default_factory=CloneConfig)
    """Settings of the imitation."""
    teacher: tyro.conf.OmitArgPrefixes[TeacherConfig] = field(default_factory=TeacherConfig)
    """Settings of teacher training."""
    dagger: tyro.conf.OmitArgPrefixes[DaggerConfig] = field(default_factory=DaggerConfig)
    """Settings of DAgger."""
