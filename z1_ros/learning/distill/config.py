"""Settings of learning from a teacher."""

from dataclasses import dataclass, field

import tyro

from z1_ros.errors import ConfigError
from z1_ros.learning.core.run_config import (
    VALIDATION_SEED,
    RunConfig,
    require_at_least,
    require_positive,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CloneConfig:
    """How a teacher first learns to do what the policy does when it succeeds."""

    watch_episodes: int = 320
    """Episodes of the policy that it watches."""
    clone_steps: int = 2000
    """Steps of imitation."""
    clone_batch_size: int = 512
    """Decisions of a step."""
    clone_learning_rate: float = 1e-3
    """At first; it falls to 0."""
    dropout: float = 0.2
    """Share of hidden numbers left out, in imitation alone: the episodes are few."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_at_least(self, 1, "watch_episodes", "clone_steps", "clone_batch_size")
        require_positive(self, "clone_learning_rate")
        require_at_least(self, 0, "dropout")
        if self.dropout >= 1:
            raise ConfigError(f"dropout is {self.dropout}, expected less than 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class PracticeConfig:
    """How a teacher then improves, from success alone."""

    practice: int = 40
    """Iterations of practice at most."""
    enough: float = 0.95
    """Success without noise at which practice ends, the mean of two: from the start of validation
    scenes, and from where the policy got in episodes that were kept for this."""
    check_every: int = 5
    """Iterations between two such measurements."""
    check_episodes: int = 200
    """Episodes of each, half of either kind."""
    scenes: int = 64
    """Beginnings of an iteration's episodes."""
    tries: int = 4
    """Episodes from each."""
    rescue_share: float = 0.5
    """Share of beginnings where the policy had got to when it was watched, often in trouble: its
    advice is asked for there. The others are starts of scenes."""
    latest_chunk: int = 20
    """Last chunk of the policy after which it takes over."""
    hold: int = 4
    """Control steps for which an action is held."""
    sigma: float = 0.04
    """Noise on positions at first, in units of action; half of it on rotations, three times as
    much on the gripper."""
    gamma: float = 0.99
    """Discount of success, by decision."""
    gae_lambda: float = 0.95
    """GAE's decay."""
    clip: float = 0.2
    """Ratios count from 1 - clip to 1 + clip."""
    epochs: int = 5
    """Passes over an iteration's decisions."""
    batch_size: int = 1024
    """Decisions of a step."""
    learning_rate: float = 2e-4
    """Adam's."""
    critic_learning_rate: float = 1e-3
    """The same, of the critic."""
    max_kl: float = 0.08
    """KL divergence of a minibatch at which an iteration's update ends."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_at_least(self, 1, "check_every", "scenes", "tries", "hold", "latest_chunk")
        require_at_least(self, 1, "epochs", "batch_size")
        require_at_least(self, 0, "practice", "enough", "gae_lambda", "rescue_share")
        require_at_least(self, 2, "check_episodes")
        require_positive(self, "sigma", "gamma", "clip", "learning_rate", "max_kl")
        require_positive(self, "critic_learning_rate")
        for name in ("gamma", "gae_lambda", "rescue_share"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at most 1")
        if self.check_episodes > 10_000 - VALIDATION_SEED:
            raise ConfigError(f"check_episodes is {self.check_episodes}, expected at most 1000")


@dataclass(frozen=True, kw_only=True, slots=True)
class LessonConfig:
    """How the policy learns from the teacher, round by round."""

    episodes: int = 64
    """Episodes of the policy in a round; every state of them is a lesson."""
    window: int = 40
    """Rounds of which lessons are kept, in memory and on disk: 80 KB for each state in the kitchen,
    about 100 MB a round."""
    steps: int = 150
    """Optimiser steps of the action expert in a round."""
    lesson_batch_size: int = 64
    """Lessons of a step."""
    draws: int = 4
    """Noises and flow times drawn for each of them."""
    expert_learning_rate: float = 3e-4
    """AdamW's."""
    weight_decay: float = 0.01
    """AdamW's."""
    clip_norm: float = 1.0
    """Longest gradient."""
    ema: float = 0.995
    """Decay, by step, of the average of the weights; it acts and becomes the bundle."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_at_least(self, 1, "episodes", "window", "steps", "lesson_batch_size", "draws")
        require_at_least(self, 0, "weight_decay", "ema")
        require_positive(self, "expert_learning_rate", "clip_norm")
        if self.ema >= 1:
            raise ConfigError(f"ema is {self.ema}, expected less than 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeachConfig(RunConfig):
    """Improve a policy on one task through a teacher that sees the simulator's truth."""

    iterations: int = 0
    """Budget of iterations: watching, each practice and each round of lessons is one; 0: none."""
    env_steps: int = 0
    """Budget of control steps, the teacher's included; 0: none."""
    eval_every: int = 10
    """Rounds of lessons between two measurements of the policy."""
    keep: str = "last"
    """Weights that become the bundle: the ``last``, or the ``best`` measured."""
    clone: tyro.conf.OmitArgPrefixes[CloneConfig] = field(default_factory=CloneConfig)
    """How the teacher begins."""
    practice: tyro.conf.OmitArgPrefixes[PracticeConfig] = field(default_factory=PracticeConfig)
    """How it improves."""
    lesson: tyro.conf.OmitArgPrefixes[LessonConfig] = field(default_factory=LessonConfig)
    """How the policy learns from it."""
