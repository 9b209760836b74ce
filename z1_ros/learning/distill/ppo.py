"""PPO for a teacher: it acts on the truth, so a critic of the truth can say what each action did.

Sources: PPO (arXiv 1707.06347), generalised advantage estimation (arXiv 1506.02438).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from z1_ros.learning.distill.config import PracticeConfig
from z1_ros.learning.distill.practice import Practised
from z1_ros.learning.distill.teacher import Critic, Teacher
from z1_ros.learning.grpo.update import clipped_loss, require_same_policy

_TIME = 0.01
"""Decisions to a number of order one."""


def advantages(
    values: np.ndarray, lengths: np.ndarray, success: np.ndarray, gamma: float, decay: float
) -> np.ndarray:
    """Return generalised advantage estimates (N,) of decisions, episode after episode.

    The only reward is 1 for the decision that brings success; an episode that ends without it has
    nothing left to gain.

    Args:
        values: The critic's, before each decision (N,).
        lengths: Decisions of each episode (G,).
        success: Whether each succeeded (G,).
        gamma: Discount by decision.
        decay: GAE's λ.
    """
    found = np.zeros(len(values))
    ends = np.cumsum(lengths)
    for end, length, won in zip(ends, lengths, success, strict=True):
        ahead, after = 0.0, 0.0
        for at in range(end - 1, end - length - 1, -1):
            reward = float(won) if at == end - 1 else 0.0
            ahead = reward + gamma * after - values[at] + gamma * decay * ahead
            found[at], after = ahead, values[at]
    return found


def passed(practised: Sequence[Practised], hold: int) -> np.ndarray:
    """Return how many decisions' time of its episode lies before each decision (N,)."""
    return np.concatenate(
        [p.begun / hold + np.arange(length) for p in practised for length in p.lengths]
    )


class TeacherUpdate:
    """Improves a teacher and its critic from what was practised."""

    def __init__(self, teacher: Teacher, critic: Critic, config: PracticeConfig):
        """Set up.

        Args:
            teacher: What is improved.
            critic: Of its own truth and the time that has passed.
            config: Discount, clipping, epochs.
        """
        self.teacher = teacher
        self.critic = critic
        self._config = config
        rate = config.learning_rate
        policy = [p for n, p in teacher.named_parameters() if n != "log_std"]
        self.optimizer = torch.optim.Adam(
            [
                {"params": policy, "lr": rate},
                {"params": [teacher.log_std], "lr": 10 * rate},
                {"params": list(critic.parameters()), "lr": config.critic_learning_rate},
            ],
            eps=1e-5,
        )

    def run(self, practised: Sequence[Practised], seed: int, *, policy: bool) -> dict[str, float]:
        """Train on groups of episodes; return figures.

        Args:
            practised: The groups.
            seed: Of the minibatches.
            policy: False: only the critic learns, as before it knows anything.
        """
        config = self._config
        truth = torch.from_numpy(np.concatenate([p.truth for p in practised]))
        action = torch.from_numpy(np.concatenate([p.action for p in practised]))
        before = torch.from_numpy(np.concatenate([p.log_prob for p in practised]))
        lengths = np.concatenate([p.lengths for p in practised])
        success = np.concatenate([p.success for p in practised])
        time = torch.from_numpy(passed(practised, config.hold)).float() * _TIME
        with torch.no_grad():
            values = self.critic(truth, time)
            mismatch = (self.teacher.log_prob(truth, action) - before).abs().max().item()
        require_same_policy(mismatch)
        gained = advantages(values.numpy(), lengths, success, config.gamma, config.gae_lambda)
        returns = values + torch.from_numpy(gained).float()
        scaled = (gained - gained.mean()) / (gained.std() + 1e-6)
        advantage = torch.from_numpy(scaled).float()
        explained = 1 - float((returns - values).var() / returns.var().clamp(min=1e-8))
        random = torch.Generator().manual_seed(seed)
        drifts: list[float] = []
        for _ in range(config.epochs):
            for rows in torch.randperm(len(truth), generator=random).split(config.batch_size):
                error = self.critic(truth[rows], time[rows]) - returns[rows]
                loss = error.square().mean()
                if policy:
                    drift = self.teacher.log_prob(truth[rows], action[rows]) - before[rows]
                    drifts.append(_kl(drift))
                    if drifts[-1] > config.max_kl:
                        break
                    each = clipped_loss(drift.exp(), advantage[rows], config.clip, config.clip)
                    loss = loss + each.mean()
                self._step(loss)
            if drifts and np.mean(drifts[-5:]) > config.max_kl / 2:
                break
        return {
            "practice_success": float(success.mean()),
            "practice_steps": float(np.mean(np.concatenate([p.steps for p in practised]))),
            "practice_kl": float(np.mean(drifts)) if drifts else 0.0,
            "critic_explains": explained,
            "log_prob_mismatch": mismatch,
        }

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()


def _kl(drift: Tensor) -> float:
    """Return how far log-probabilities have moved, as an estimate of the KL divergence."""
    with torch.no_grad():
        return (drift.exp() - 1 - drift).mean().item()
