"""GRPO on sampled chunks: from groups of rollouts to one update of the weights.

There is no critic, no reference policy and no KL term. The loss is averaged over the trainable
chunks of a global batch. Source: Z-1 (arXiv 2606.31846) §3.1.2, Eq. 2-4. The additional
flow-matching loss on chunks with a positive advantage is not part of Z-1; it follows self-imitation
(arXiv 1806.05635).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from z1_ros.learning.core.loss import (
    clipped_loss,
    draw_flow,
    flow_loss,
    kl_estimate,
    require_same_policy,
    take_step,
)
from z1_ros.learning.grpo.advantage import (
    alive_advantages,
    calibrated_returns,
    group_advantages,
)
from z1_ros.learning.grpo.config import GrpoConfig
from z1_ros.learning.rollout.collector import Executed, Group
from z1_ros.learning.rollout.flow_sde import (
    FlowSde,
    Transitions,
    log_prob,
    masked_log_prob,
    step_std,
)
from z1_ros.learning.rollout.plan import Samples, samples_of
from z1_ros.models.network.pi05 import Pi05, Prefix


@dataclass(frozen=True, slots=True)
class Batch:
    """Training data of one iteration: M chunks and N ≥ M rows of the loss."""

    rows: Tensor
    """Row of each chunk's prefix features in ``RolloutFeatures`` (M,) int64."""
    chain: Transitions
    end: Tensor
    """Normalised actions of each chunk at the end of denoising (M, H, action_dim)."""
    real_dims: int
    """Number of leading action dimensions that are not padding."""
    action_mask: Tensor
    """True for executed actions and real dimensions (M, H, action_dim) bool."""
    old_log_prob: Tensor
    """Log-probability of each stochastic step when it was sampled (M, S)."""
    chunk: Tensor
    """Index of the chunk of each row of the loss (N,) int64."""
    advantage: Tensor
    """Advantage of each row of the loss (N,) float32."""


def score(group: Group, config: GrpoConfig) -> Samples | None:
    """Return a group's samples with their advantages; None if it is not trained on.

    That is if its mean reward is outside the filter, or if it has no advantage that is not 0.
    """
    success, lengths = group.success, group.lengths
    returns = calibrated_returns(success, lengths, config.gamma, config.calibration)
    advantages = group_advantages(returns, success, config.calibration)
    if config.baseline == "alive":
        advantages = alive_advantages(advantages, returns, success, lengths)
    samples = samples_of(group.job.plan, lengths.tolist(), advantages)
    low, high = config.filter_range
    # Rows with advantage 0 have no gradient, but they count in the average if the group is kept.
    return samples if low <= returns.mean() <= high and samples.advantage.any() else None


def make_batch(
    groups: Sequence[Group], scored: Sequence[Samples | None], real_dims: int
) -> Batch | None:
    """Return the training data of all groups with samples, or None if no group has any."""
    chunks: list[Executed] = []
    at: list[np.ndarray] = []
    kept = [(group, own) for group, own in zip(groups, scored, strict=True) if own]
    for group, own in kept:
        place: dict[tuple[int, int], int] = {}
        pairs = list(zip(own.segment, own.chunk, strict=True))
        for segment, chunk in pairs:
            if (segment, chunk) not in place:
                place[segment, chunk] = len(chunks)
                first = group.job.plan.segments[segment].start
                chunks.append(group.segments[segment].executed[chunk - first])
        at.append(np.array([place[pair] for pair in pairs], np.int64))
    if not chunks:
        return None
    end = torch.stack([e.chunk.end for e in chunks])
    steps = torch.tensor([e.steps for e in chunks])
    _, horizon, dims = end.shape
    executed = torch.arange(horizon)[None, :, None] < steps[:, None, None]
    action_mask = executed & (torch.arange(dims) < real_dims)
    log_probs = torch.stack([e.chunk.log_probs for e in chunks])
    parts = zip(*(e.chunk.chain for e in chunks), strict=True)
    advantages = np.concatenate([own.advantage for _, own in kept])
    return Batch(
        rows=torch.tensor([e.chunk.row for e in chunks]),
        chain=Transitions(*(torch.stack(part) for part in parts)),
        end=end,
        real_dims=real_dims,
        action_mask=action_mask,
        old_log_prob=masked_log_prob(log_probs, action_mask),
        chunk=torch.from_numpy(np.concatenate(at)),
        advantage=torch.from_numpy(advantages).float(),
    )


def step_weights(sde: FlowSde, kind: str) -> Tensor:
    """Return the weight of each denoise step (K,) in the loss; the stochastic steps have mean 1.

    Source: TempFlow-GRPO (arXiv 2508.04324), which uses the standard deviation as weight.
    """
    weight = torch.ones(sde.steps)
    if kind == "variance":
        variance = step_std(torch.arange(sde.noisy_steps), sde).float() ** 2
        weight[: sde.noisy_steps] = variance / variance.mean()
    return weight


class Update:
    """Updates the weights of the policy on batches, and measures the change of the policy."""

    def __init__(
        self,
        network: Pi05,
        optimizer: torch.optim.Optimizer,
        config: GrpoConfig,
        sde: FlowSde,
        prefix_of: Callable[[Tensor], Prefix],
    ):
        """Set up for chunks that were sampled with ``sde``.

        ``prefix_of`` returns the encoded observations of rows (B,), with gradients if the VLM is
        trained.
        """
        self._network = network
        self._optimizer = optimizer
        self._config = config
        self._sde = sde
        self._prefix_of = prefix_of
        self._step_weight = step_weights(sde, config.step_weight)
        self._trained = [p for group in optimizer.param_groups for p in group["params"]]

    def run(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Train on a batch; return metrics of the update.

        Raises Diverged if a gradient is not finite, TrainingError if other weights made the batch.
        """
        config, rows = self._config, len(batch.chunk)
        sums: dict[str, Tensor] = {}
        norms: list[float] = []
        flow_losses: list[float] = []
        mismatch = math.nan
        for _ in range(config.update_epochs):
            order = torch.randperm(rows, generator=generator)
            for part in order.tensor_split(min(config.minibatches, rows)):
                # Rows with advantage 0 have no gradient: skip them, but count them in the mean.
                useful = part[batch.advantage[part] != 0]
                if not len(useful):
                    continue
                for micro in useful.split(config.micro_batch):
                    log_ratio = self._backward(batch, micro, len(part), sums)
                    if math.isnan(mismatch):
                        mismatch = log_ratio.abs().max().item()
                        require_same_policy(mismatch)
                better = useful[batch.advantage[useful] > 0]
                if config.flow_weight and len(better):
                    flow_losses.append(self._match_flow(batch, better, generator))
                norms.append(take_step(self._optimizer, self._trained, config.clip_norm))
        metrics = summarise(sums, self._sde.steps)
        if flow_losses:
            metrics["flow_loss"] = float(np.mean(flow_losses))
        return metrics | {
            "rows": float(rows),
            "chunks": float(len(batch.rows)),
            "grad_norm": float(np.mean(norms)),
            "log_prob_mismatch": mismatch,
            "kl_update": self._moved(batch),
        }

    def _backward(self, batch: Batch, micro: Tensor, count: int, sums: dict[str, Tensor]) -> Tensor:
        """Accumulate the gradient of a micro-batch of ``count`` rows; return its log-ratios."""
        clip = self._config.clip
        chunk, advantage = batch.chunk[micro], batch.advantage[micro, None]
        log_ratio = self._log_ratio(batch, chunk)
        ratio = log_ratio.exp()
        each = clipped_loss(ratio, advantage, clip)
        index = batch.chain.number[chunk]
        loss = (each * self._step_weight[index]).mean(1).sum() / float(count)
        loss.backward()
        with torch.no_grad():
            clipped = ((ratio < 1 - clip) & (advantage < 0)) | (
                (ratio > 1 + clip) & (advantage > 0)
            )
            measured = {"loss": each, "clipped": clipped.float(), "kl": kl_estimate(log_ratio)}
            for name, values in measured.items():
                by_step = torch.zeros(self._sde.steps, 2)
                by_step[:, 0].index_add_(0, index.flatten(), values.detach().flatten())
                by_step[:, 1].index_add_(0, index.flatten(), torch.ones(index.numel()))
                sums[name] = sums.get(name, 0) + by_step
        return log_ratio.detach()

    def _match_flow(self, batch: Batch, rows: Tensor, generator: torch.Generator) -> float:
        """Accumulate the flow-matching gradient for the chunks of some rows; return the loss."""
        actions = batch.end[batch.chunk[rows]]
        noise, time = draw_flow(actions, 1, generator)
        valid = torch.ones(actions.shape[:2], dtype=torch.bool)
        total = 0.0
        for part in torch.arange(len(rows)).split(self._config.micro_batch):
            prefix = self._prefix_of(batch.rows[batch.chunk[rows[part]]])
            drawn = (each[part] for each in (actions, valid, noise, time))
            loss = flow_loss(self._network, prefix, *drawn, dims=batch.real_dims)
            loss = loss * len(part) / len(rows)
            (self._config.flow_weight * loss).backward()
            total += loss.item()
        return total

    @torch.no_grad()
    def _moved(self, batch: Batch) -> float:
        """Return the KL divergence per step that the whole update caused on some useful rows."""
        rows = (batch.advantage != 0).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        some = rows[order][: self._config.micro_batch]
        return kl_estimate(self._log_ratio(batch, batch.chunk[some])).mean().item()

    def _log_ratio(self, batch: Batch, chunk: Tensor) -> Tensor:
        """Return how the log-probabilities of chunks have changed since they were sampled."""
        prefix = self._prefix_of(batch.rows[chunk])
        chain = Transitions(*(part[chunk] for part in batch.chain))
        now = log_prob(self._network, prefix, chain, batch.action_mask[chunk], self._sde)
        return now - batch.old_log_prob[chunk]


def summarise(sums: Mapping[str, Tensor], steps: int) -> dict[str, float]:
    """Return means over all rows and by denoise step, from sums and counts (steps, 2)."""
    metrics = {}
    for name, by_step in sums.items():
        value, count = by_step.sum(0)
        metrics[name] = (value / count.clamp(min=1)).item()
        if name == "loss":
            continue
        for step in range(steps):
            if by_step[step, 1] > 0:
                metrics[f"{name}_step{step}"] = (by_step[step, 0] / by_step[step, 1]).item()
    return metrics
