"""How likely and how soon success is, from the simulator's truth: learnt from success alone.

It serves training only (``z1_ros.rl.search``); a policy is never given the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

_FARTHEST = 5.0
"""Where inputs are cut off, in standard deviations."""


class Critic(nn.Module):
    """A few equal networks, each with initial weights and batches of its own.

    Source: ensembles whose disagreement counts against a value, as Lakshminarayanan et al.
    (arXiv 1612.01474) estimate uncertainty and REDQ (arXiv 2101.05982) values.
    """

    def __init__(self, inputs: int, members: int = 3, width: int = 256):
        """Set up.

        Args:
            inputs: Numbers of the truth.
            members: Networks.
            width: Of both hidden layers.
        """
        super().__init__()

        def network() -> nn.Sequential:
            return nn.Sequential(
                # One more input: whether the search acts from here on, or the policy.
                nn.Linear(inputs + 1, width),
                nn.SiLU(),
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.LayerNorm(width),
                nn.Linear(width, 1),
            )

        self.members = nn.ModuleList(network() for _ in range(members))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))

    def scaled(self, truth: Tensor, searching: Tensor) -> Tensor:
        """Return the networks' input (B, n + 1) of truths (B, n) and who acts (B,)."""
        near = ((truth - self.mean) / self.std).clamp(-_FARTHEST, _FARTHEST)
        return torch.cat([near, searching[:, None]], 1)

    def forward(self, truth: Tensor, searching: Tensor) -> Tensor:
        """Return each network's logit of the discounted success (members, B)."""
        inputs = self.scaled(truth, searching)
        return torch.stack([member(inputs)[:, 0] for member in self.members])

    @torch.no_grad()
    def values(self, truth: np.ndarray, doubt: float) -> np.ndarray:
        """Return logits (B,) of truths (B, n) if the search goes on from there.

        Args:
            truth: Where to go on.
            doubt: Standard deviations of the networks' answers that are taken off.
        """
        logits = self(torch.from_numpy(truth), torch.ones(len(truth)))
        return (logits.mean(0) - doubt * logits.std(0)).numpy()


@dataclass(frozen=True, slots=True)
class Outcomes:
    """States that were visited, and what came of them; M in all."""

    truth: np.ndarray
    """(M, n) float32."""
    value: np.ndarray
    """Discounted success from there on (M,) float32."""
    searching: np.ndarray
    """Whether the search acted (M,) bool."""
    episode: np.ndarray
    """Number of the episode (M,) int64."""


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the states of several collections as one; episodes are numbered anew."""
    first = np.cumsum([0, *(int(part.episode.max()) + 1 for part in parts[:-1])])
    return Outcomes(
        truth=np.concatenate([part.truth for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        searching=np.concatenate([part.searching for part in parts]),
        episode=np.concatenate(
            [part.episode + n for part, n in zip(parts, first, strict=True)],
        ),
    )


def fit_critic(
    outcomes: Outcomes,
    *,
    steps: int,
    seed: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    jitter: float = 0.02,
    check_every: int = 100,
) -> tuple[Critic, dict[str, float]]:
    """Return a critic of what was seen, and figures of the fit.

    One episode of ten is held out; what predicts those best is kept, for a few hundred episodes
    are soon learnt by heart.

    Args:
        outcomes: What was seen.
        steps: Steps at most.
        seed: Of weights and batches.
        batch_size: States of a step, for each network.
        learning_rate: At first; it falls to 0.
        weight_decay: AdamW's.
        jitter: Noise on scaled inputs.
        check_every: Steps between two looks at the held-out episodes.
    """
    random = torch.Generator().manual_seed(seed)
    truth, value = torch.from_numpy(outcomes.truth), torch.from_numpy(outcomes.value)
    searching = torch.from_numpy(outcomes.searching).float()
    held = torch.from_numpy(outcomes.episode % 10 == 0)
    if held.all():  # so few that nothing can be held out
        held = torch.zeros_like(held)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        critic = Critic(truth.shape[1])
    critic.mean.copy_(truth.mean(0))
    critic.std.copy_(truth.std(0) + 0.02)
    train, test = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    test = test if len(test) else train

    def held_out_loss() -> float:
        with torch.no_grad():
            logits = critic(truth[test], searching[test]).mean(0)
        return cross_entropy(logits, value[test]).item()

    optimizer = torch.optim.AdamW(critic.parameters(), lr=learning_rate, weight_decay=weight_decay)
    best = (held_out_loss(), 0, _copied(critic))
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - (step - 1) / steps)
        loss = torch.zeros(())
        for member in critic.members:
            rows = train[torch.randint(len(train), (batch_size,), generator=random)]
            inputs = critic.scaled(truth[rows], searching[rows])
            inputs = inputs + jitter * torch.randn(inputs.shape, generator=random)
            loss = loss + cross_entropy(member(inputs)[:, 0], value[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % check_every == 0 and (now := held_out_loss()) < best[0]:
            best = (now, step, _copied(critic))
    critic.load_state_dict(best[2])
    return critic.requires_grad_(False), {
        "critic_loss": best[0],
        "critic_steps": float(best[1]),
        "critic_states": float(len(truth)),
    }


def _copied(critic: Critic) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in critic.state_dict().items()}
