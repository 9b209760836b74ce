"""GRPO on sampled chunks: from groups of rollouts to one update of the weights.

No critic, no reference policy, no KL term. The loss is averaged over the trainable chunks of a
global batch. Source: Z-1 (arXiv 2606.31846) §3.1.2, Eq. 2-4; clip-higher: DAPO (arXiv 2503.14476).
Flow matching on what did better beside it is ours, after self-imitation (arXiv 1806.05635).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from z1_ros.errors import Diverged, TrainingError
from z1_ros.learning.core.loss import flow_loss
from z1_ros.learning.grpo.advantage import (
    calibrated_returns,
    chunk_advantages,
    group_advantages,
    kept_groups,
)
from z1_ros.learning.grpo.config import GrpoConfig
from z1_ros.learning.rollout.collector import Executed, Group
from z1_ros.learning.rollout.flow_sde import (
    FlowSde,
    Transitions,
    chunk_log_prob,
    log_prob,
    step_std,
)
from z1_ros.learning.rollout.plan import Samples, samples_of
from z1_ros.models.network.pi05 import Pi05, Prefix, draw_time


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that is trained on in one iteration: M chunks, N ≥ M rows of the loss."""

    rows: Tensor
    """Where each chunk's encoded observation is kept (M,) int64."""
    chain: Transitions
    """Stochastic steps of each chunk."""
    start: Tensor
    """Noise each began from (M, H, action_dim)."""
    end: Tensor
    """Normalised actions each ended in, same shape."""
    real_dims: int
    """Leading action dimensions that are not padding."""
    counted: Tensor
    """Executed actions, real dimensions (M, H, action_dim) bool."""
    old_log_prob: Tensor
    """As they were sampled (M, R): one, or one for each stochastic step."""
    chunk: Tensor
    """Chunk of each row of the loss (N,) int64."""
    advantage: Tensor
    """(N,) float32."""
    weight: Tensor
    """(N,) float32."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A group with what it is worth."""

    group: Group
    """Its rollouts."""
    returns: np.ndarray
    """Calibrated rewards (G,)."""
    samples: Samples
    """Its rows."""
    kept: bool
    """Its mean return is within the filter's bounds."""


def score(group: Group, config: GrpoConfig) -> Scored:
    """Return a group's rewards, advantages and rows."""
    success, lengths = group.success, group.lengths
    returns = calibrated_returns(success, lengths, config.gamma, config.calibration)
    advantages = group_advantages(returns, success, config.normalization, config.calibration)
    if config.baseline == "alive":
        advantages = chunk_advantages(advantages, returns, success, lengths, config.normalization)
    samples = samples_of(group.job.plan, lengths.tolist(), advantages, returns, config.credit)
    kept = kept_groups(returns.mean(keepdims=True), config.filter_low, config.filter_high)[0]
    # Rows without an advantage have no gradient; the filter alone decides what is averaged over.
    return Scored(group, returns, samples, bool(kept) and bool(np.any(samples.advantage)))


def make_batch(scored: Sequence[Scored], sde: FlowSde, real_dims: int) -> Batch | None:
    """Return the rows of all kept groups, or None if there is nothing to learn from."""
    chunks: list[Executed] = []
    at: list[np.ndarray] = []
    for item in scored:
        if not item.kept:
            continue
        place: dict[tuple[int, int], int] = {}
        for segment, chunk in zip(item.samples.segment, item.samples.chunk, strict=True):
            if (segment, chunk) not in place:
                place[segment, chunk] = len(chunks)
                first = item.group.job.plan.segments[segment].start
                chunks.append(item.group.segments[segment].executed[chunk - first])
        pairs = zip(item.samples.segment, item.samples.chunk, strict=True)
        at.append(np.array([place[pair] for pair in pairs], np.int64))
    if not chunks:
        return None
    start = torch.stack([e.chunk.start for e in chunks])
    steps = torch.tensor([e.steps for e in chunks])
    _, horizon, dims = start.shape
    counted = torch.arange(horizon)[None, :, None] < steps[:, None, None]
    counted = counted & (torch.arange(dims) < real_dims)
    log_probs = torch.stack([e.chunk.log_probs for e in chunks])
    parts = zip(*(e.chunk.chain for e in chunks), strict=True)
    kept = [item.samples for item in scored if item.kept]
    return Batch(
        rows=torch.tensor([e.chunk.row for e in chunks]),
        chain=Transitions(*(torch.stack(part) for part in parts)),
        start=start,
        end=torch.stack([e.chunk.end for e in chunks]),
        real_dims=real_dims,
        counted=counted,
        old_log_prob=chunk_log_prob(log_probs, counted, start, sde),
        chunk=torch.from_numpy(np.concatenate(at)),
        advantage=torch.from_numpy(np.concatenate([s.advantage for s in kept])).float(),
        weight=torch.from_numpy(np.concatenate([s.weight for s in kept])).float(),
    )


def clipped_loss(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Return PPO's clipped surrogate of each row, to be minimised.

    Args:
        ratio: New over old probability.
        advantage: Same shape.
        low: The ratio counts from 1 - low …
        high: … to 1 + high.
    """
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def step_weights(sde: FlowSde, kind: str) -> Tensor:
    """Return the weight of each denoise step (K,) in the loss; the stochastic ones' mean is 1.

    Source: TempFlow-GRPO (arXiv 2508.04324), which weighs by the standard deviation.
    """
    weight = torch.ones(sde.steps)
    # Steps that share one ratio cannot be weighed one by one.
    if kind == "variance" and sde.stochastic in ("one", "all_each"):
        variance = step_std(torch.arange(sde.drawn_steps), sde).float() ** 2
        weight[: sde.drawn_steps] = variance / variance.mean()
    return weight


MAX_MISMATCH = 0.01
"""Beyond it, rollouts and updates do not compute the same policy; rounding gives 1e-4 or less."""


class Update:
    """Updates weights from batches, and says how far it went."""

    def __init__(
        self,
        network: Pi05,
        optimizer: torch.optim.Optimizer,
        config: GrpoConfig,
        sde: FlowSde,
        prefix_of: Callable[[Tensor], Prefix],
    ):
        """Set up.

        Args:
            network: What is trained.
            optimizer: Over its trainable parameters.
            config: Epochs, minibatches, clipping.
            sde: As the chunks were sampled.
            prefix_of: Encoded observations of rows (B,), with gradients if the VLM is trained.
        """
        self._network = network
        self._optimizer = optimizer
        self._config = config
        self._sde = sde
        self._prefix_of = prefix_of
        self._step_weight = step_weights(sde, config.step_weight)
        self._trained = [p for group in optimizer.param_groups for p in group["params"]]

    def run(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Train on a batch; return figures of the update.

        Raises:
            Diverged: A gradient is not finite.
            TrainingError: The rollouts' log-probabilities are not this network's.
        """
        config, rows = self._config, len(batch.chunk)
        total: dict[str, Tensor] = {}
        norms: list[float] = []
        flow_losses: list[float] = []
        mismatch = math.nan
        for _ in range(config.update_epochs):
            order = torch.randperm(rows, generator=generator)
            for part in order.tensor_split(min(config.minibatches, rows)):
                # What has no advantage has no gradient: it counts, and costs nothing.
                felt = part[batch.advantage[part] != 0]
                if not len(felt):
                    continue
                weight = batch.weight[part].sum()
                for micro in felt.split(config.micro_batch):
                    drift = self._backward(batch, micro, weight, total)
                    if math.isnan(mismatch):
                        mismatch = drift.abs().max().item()
                        require_same_policy(mismatch)
                better = felt[batch.advantage[felt] > 0]
                if config.flow_weight and len(better):
                    flow_losses.append(self._imitate(batch, better, generator))
                norms.append(self._step())
        figures = summarise(total, self._sde.steps)
        if flow_losses:
            figures["flow_loss"] = float(np.mean(flow_losses))
        return figures | {
            "rows": float(rows),
            "chunks": float(len(batch.rows)),
            "grad_norm": float(np.mean(norms)),
            "log_prob_mismatch": mismatch,
            "kl_update": self._moved(batch, felt_rows(batch)[: config.micro_batch]),
        }

    def _imitate(self, batch: Batch, rows: Tensor, generator: torch.Generator) -> float:
        """Add the gradient of flow matching to the chunks of some rows; return the loss."""
        actions = batch.end[batch.chunk[rows]]
        noise = torch.randn(actions.shape, generator=generator)
        time = draw_time((len(rows),), generator)
        total = 0.0
        for part in torch.arange(len(rows)).split(self._config.micro_batch):
            prefix = self._prefix_of(batch.rows[batch.chunk[rows[part]]])
            valid = torch.ones(actions[part].shape[:2], dtype=torch.bool)
            loss = flow_loss(
                self._network,
                prefix,
                actions[part],
                valid,
                noise[part],
                time[part],
                dims=batch.real_dims,
            )
            loss = loss * len(part) / len(rows)
            (self._config.flow_weight * loss).backward()
            total += loss.item()
        return total

    def _step(self) -> float:
        """Take an optimiser's step; return the gradient's norm."""
        norm = torch.nn.utils.clip_grad_norm_(self._trained, self._config.clip_norm).item()
        if not math.isfinite(norm):
            raise Diverged("its gradient is not finite")
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def _moved(self, batch: Batch, rows: Tensor) -> float:
        """Return how far the update as a whole moved the policy on some rows, as KL per step."""
        drift = self._log_prob(batch, batch.chunk[rows]) - batch.old_log_prob[batch.chunk[rows]]
        return (drift.exp() - 1 - drift).mean().item()

    def _log_prob(self, batch: Batch, chunk: Tensor) -> Tensor:
        """Return log-probabilities of chunks as the network gives them now."""
        return log_prob(
            self._network,
            self._prefix_of(batch.rows[chunk]),
            Transitions(*(part[chunk] for part in batch.chain)),
            batch.counted[chunk],
            batch.start[chunk],
            self._sde,
        )

    def _backward(
        self, batch: Batch, micro: Tensor, weight: Tensor, total: dict[str, Tensor]
    ) -> Tensor:
        """Add the gradient of some rows; return how their log-probabilities have moved."""
        config = self._config
        chunk, advantage = batch.chunk[micro], batch.advantage[micro, None]
        drift = self._log_prob(batch, chunk) - batch.old_log_prob[chunk]
        ratio = drift.exp()
        high = config.clip_high or config.clip
        each = clipped_loss(ratio, advantage, config.clip, high)
        index = batch.chain.index[chunk][:, : ratio.shape[1]]
        loss = ((each * self._step_weight[index]).mean(1) * batch.weight[micro]).sum() / weight
        loss.backward()
        with torch.no_grad():
            clipped = ((ratio < 1 - config.clip) & (advantage < 0)) | (
                (ratio > 1 + high) & (advantage > 0)
            )
            measured = {"loss": each, "clipped": clipped.float(), "kl": ratio - 1 - drift}
            for name, values in measured.items():
                sums = torch.zeros(self._sde.steps, 2)
                sums[:, 0].index_add_(0, index.flatten(), values.detach().flatten())
                sums[:, 1].index_add_(0, index.flatten(), torch.ones(index.numel()))
                total[name] = total.get(name, 0) + sums
        return drift.detach()


def felt_rows(batch: Batch) -> Tensor:
    """Return the rows that have an advantage, spread over the whole batch (N,)."""
    rows = (batch.advantage != 0).nonzero()[:, 0]
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def require_same_policy(mismatch: float) -> None:
    """Raise TrainingError if recomputed log-probabilities are not those of the rollouts."""
    if not mismatch <= MAX_MISMATCH:
        raise TrainingError(
            f"log-probabilities of the rollouts differ by {mismatch:.3g} when they are recomputed, "
            f"expected at most {MAX_MISMATCH}: rollouts and update are not of the same policy"
        )


def summarise(total: Mapping[str, Tensor], steps: int) -> dict[str, float]:
    """Return means over all rows, and by denoise step, of sums and counts (steps, 2)."""
    figures = {}
    for name, sums in total.items():
        value, count = sums.sum(0)
        figures[name] = (value / count.clamp(min=1)).item()
        if name == "loss":
            continue
        for step in range(steps):
            if sums[step, 1] > 0:
                figures[f"{name}_step{step}"] = (sums[step, 0] / sums[step, 1]).item()
    return figures
