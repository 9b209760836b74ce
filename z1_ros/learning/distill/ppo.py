"""PPO for a privileged teacher; its critic reads the same privileged state.

Sources: PPO (arXiv 1707.06347), generalised advantage estimation (arXiv 1506.02438).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from z1_ros.learning.core.loss import clipped_loss, kl_estimate, require_same_policy
from z1_ros.learning.distill.config import TeacherConfig
from z1_ros.learning.distill.numpy_teacher import TeacherRollouts
from z1_ros.learning.distill.teacher import Critic, Teacher

_TIME_SCALE = 0.01
"""Factor that scales a time in decisions to order one, for the critic."""


def advantages(
    values: np.ndarray, lengths: np.ndarray, success: np.ndarray, gamma: float, decay: float
) -> np.ndarray:
    """Return the generalised advantage estimates of all decisions (N,).

    The only reward is 1, for the decision that completes the task. The value after the last
    decision of a rollout is 0, also if the rollout failed.

    ``values`` (N,) are the critic's before each decision, with all rollouts concatenated; lengths
    in decisions and success are given for each rollout (G,). γ is the discount per decision, the
    decay is λ.
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


def decision_times(rollouts: Sequence[TeacherRollouts], hold_steps: int) -> np.ndarray:
    """Return the episode time before each decision (N,), in units of decisions."""
    return np.concatenate(
        [r.steps_before / hold_steps + np.arange(length) for r in rollouts for length in r.lengths]
    )


class TeacherUpdate:
    """Trains a teacher and its critic on the teacher's rollouts."""

    def __init__(self, teacher: Teacher, critic: Critic, config: TeacherConfig):
        self.teacher = teacher
        self.critic = critic
        self._config = config
        rate = config.teacher_learning_rate
        policy = [p for n, p in teacher.named_parameters() if n != "log_std"]
        self.optimizer = torch.optim.Adam(
            [
                {"params": policy, "lr": rate},
                {"params": [teacher.log_std], "lr": 10 * rate},
                {"params": list(critic.parameters()), "lr": config.critic_learning_rate},
            ],
            eps=1e-5,
        )

    def run(
        self, rollouts: Sequence[TeacherRollouts], seed: int, *, policy: bool
    ) -> dict[str, float]:
        """Train on rollouts from several start states; return metrics.

        ``seed`` is that of the minibatches. With ``policy`` False, only the critic is trained, as
        needed while the critic is still untrained.
        """
        config = self._config
        states = torch.from_numpy(np.concatenate([r.privileged for r in rollouts]))
        actions = torch.from_numpy(np.concatenate([r.action for r in rollouts]))
        before = torch.from_numpy(np.concatenate([r.log_prob for r in rollouts]))
        lengths = np.concatenate([r.lengths for r in rollouts])
        success = np.concatenate([r.success for r in rollouts])
        time = torch.from_numpy(decision_times(rollouts, config.hold_steps)).float() * _TIME_SCALE
        with torch.no_grad():
            values = self.critic(states, time)
            mismatch = (self.teacher.log_prob(states, actions) - before).abs().max().item()
        require_same_policy(mismatch)
        gained = advantages(values.numpy(), lengths, success, config.gamma, config.gae_lambda)
        returns = values + torch.from_numpy(gained).float()
        scaled = (gained - gained.mean()) / (gained.std() + 1e-6)
        advantage = torch.from_numpy(scaled).float()
        explained = 1 - float((returns - values).var() / returns.var().clamp(min=1e-8))
        random = torch.Generator().manual_seed(seed)
        kls: list[float] = []
        for _ in range(config.epochs):
            for rows in torch.randperm(len(states), generator=random).split(config.batch_size):
                error = self.critic(states[rows], time[rows]) - returns[rows]
                loss = error.square().mean()
                if policy:
                    new = self.teacher.log_prob(states[rows], actions[rows])
                    log_ratio = new - before[rows]
                    kls.append(kl_estimate(log_ratio.detach()).mean().item())
                    if kls[-1] > config.max_kl:
                        break
                    each = clipped_loss(log_ratio.exp(), advantage[rows], config.clip)
                    loss = loss + each.mean()
                self._step(loss)
            if kls and np.mean(kls[-5:]) > config.max_kl / 2:
                break
        return {
            "teacher_train_success": float(success.mean()),
            "teacher_train_steps": float(np.mean(np.concatenate([r.steps for r in rollouts]))),
            "teacher_kl": float(np.mean(kls)) if kls else 0.0,
            "explained_variance": explained,
            "log_prob_mismatch": mismatch,
        }

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()
