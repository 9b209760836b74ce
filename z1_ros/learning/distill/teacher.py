"""The privileged teacher: a small policy that acts on simulator state, used only in training.

A policy that acts on images learns slowly from success, because it sees little and acts in long
chunks. A teacher that reads the positions of all objects learns in minutes, in physics without
rendering. The policy then learns from the teacher (``train.py``). Source: Learning by Cheating
(arXiv 1912.12294); a teacher improved by reinforcement learning, as in arXiv 2010.11251.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from z1_ros.learning.distill.config import CloneConfig
from z1_ros.learning.distill.numpy_teacher import EPSILON, INPUT_LIMIT, NumpyTeacher
from z1_ros.specs import Embodiment

_HIDDEN = 256
_SHARES = {"end_effector_rotation": 0.5, "gripper_close": 3.0}
"""Initial noise of a field, relative to the noise of positions."""
_EXACT = {"gripper_close": 0.5}
"""Weight of a field's error in the imitation; the weight of other fields is 3."""


class Teacher(nn.Module):
    """Network that gives a normal distribution of the next action, to repeat for several steps."""

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int, low: np.ndarray, high: np.ndarray, sigma: np.ndarray):
        """Set up for privileged states of dimension ``inputs``.

        ``low`` and ``high`` are the limits of actions (those of the policy's training range),
        ``sigma`` is the initial standard deviation, all (action_dim,).
        """
        super().__init__()
        self.first = nn.Linear(inputs, _HIDDEN)
        self.norm = nn.LayerNorm(_HIDDEN, eps=EPSILON)
        self.second = nn.Linear(_HIDDEN, _HIDDEN)
        self.last = nn.Linear(_HIDDEN, len(sigma))
        self.log_std = nn.Parameter(torch.from_numpy(np.log(sigma)).float())
        self.register_buffer("low", torch.from_numpy(low).float())
        self.register_buffer("high", torch.from_numpy(high).float())
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))

    def forward(self, privileged: Tensor, dropout: float = 0.0) -> Tensor:
        """Return the mean actions (B, action_dim), before clipping, for states (B, inputs)."""
        scaled = ((privileged - self.mean) / self.scale).clamp(-INPUT_LIMIT, INPUT_LIMIT)
        hidden = nn.functional.silu(self.norm(self.first(scaled)))
        hidden = nn.functional.dropout(hidden, dropout)
        hidden = nn.functional.silu(self.second(hidden))
        return self.last(nn.functional.dropout(hidden, dropout))

    def log_prob(self, privileged: Tensor, action: Tensor) -> Tensor:
        """Return log-probabilities (B,) of actions (B, action_dim), up to a constant."""
        error = (action - self(privileged)) / self.log_std.exp()
        return (-0.5 * error.square() - self.log_std).sum(1)

    @property
    def to_numpy(self) -> NumpyTeacher:
        """Copy of the teacher in NumPy, with its current weights."""
        return NumpyTeacher({n: t.detach().numpy().copy() for n, t in self.state_dict().items()})


class Critic(nn.Module):
    """Network that predicts the teacher's discounted success, given privileged state and time."""

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs + 1, _HIDDEN),
            nn.LayerNorm(_HIDDEN),
            nn.SiLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.SiLU(),
            nn.Linear(_HIDDEN, 1),
        )
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))

    def forward(self, privileged: Tensor, time: Tensor) -> Tensor:
        """Return values (B,) for states (B, inputs) at scaled times of the episode (B,)."""
        scaled = ((privileged - self.mean) / self.scale).clamp(-INPUT_LIMIT, INPUT_LIMIT)
        return self.layers(torch.cat([scaled, time[:, None]], 1))[:, 0]


def first_noise(robot: Embodiment, sigma: float) -> np.ndarray:
    """Return a teacher's initial standard deviations (action_dim,); ``sigma`` is for positions."""
    return np.array([sigma * _SHARES.get(f.name, 1.0) for f in robot.action for _ in f.dims])


def held_actions(actions: Sequence[np.ndarray], hold_steps: int) -> np.ndarray:
    """Return the action labels (T, action_dim) float32 of an episode's actions (action_dim,).

    The label of a step is the mean of the next ``hold_steps`` actions, because a teacher repeats
    each action for so many steps.
    """
    every = np.stack(actions)
    means = [every[at : at + hold_steps].mean(0) for at in range(len(every))]
    return np.stack(means).astype(np.float32)


def clone(
    teacher: Teacher,
    critic: Critic,
    episodes: Sequence[tuple[np.ndarray, np.ndarray]],
    robot: Embodiment,
    config: CloneConfig,
    seed: int,
) -> dict[str, float]:
    """Train a teacher to imitate episodes; return metrics.

    An episode consists of privileged states and decisions. If there are ten or more, every tenth is
    held out. The critic is not trained, but it gets the same input scale as the teacher. ``seed``
    is that of batches and dropout.
    """
    held = set(range(0, len(episodes), 10)) if len(episodes) >= 10 else set()

    def rows(held_out: bool) -> tuple[Tensor, Tensor]:
        kept = [e for i, e in enumerate(episodes) if (i in held) == held_out]
        states, actions = (np.concatenate(part) for part in zip(*kept, strict=True))
        return torch.from_numpy(states), torch.from_numpy(actions)

    states, actions = rows(False)
    for part in (teacher, critic):
        part.mean.copy_(states.mean(0))
        part.scale.copy_(states.std(0, correction=0) + 0.02)
    # Positions and rotations have smaller values than the gripper (1 and -1), but matter more.
    weight = torch.tensor([_EXACT.get(f.name, 3.0) for f in robot.action for _ in f.dims])
    random = torch.Generator().manual_seed(seed)
    trained = [p for name, p in teacher.named_parameters() if name != "log_std"]
    optimizer = torch.optim.AdamW(trained, lr=config.clone_learning_rate, weight_decay=0.01)
    loss = torch.zeros(())
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout draws from the global state
        for step in range(config.clone_steps):
            for group in optimizer.param_groups:
                group["lr"] = config.clone_learning_rate * (1 - step / config.clone_steps)
            at = torch.randint(len(states), (config.clone_batch_size,), generator=random)
            error = (teacher(states[at], config.clone_dropout) - actions[at]) * weight
            loss = error.square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    metrics = {"clone_loss": loss.item(), "clone_decisions": float(len(states))}
    if held:
        states, actions = rows(True)
        with torch.no_grad():
            error = (teacher(states) - actions) * weight
        metrics["clone_held_out_loss"] = error.square().mean().item()
    return metrics
