"""The policy in training: it acts in batches, in torch, and records what a likelihood needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from z1_ros.errors import Diverged
from z1_ros.learning.rollout.flow_sde import FlowSde, Transitions, sample
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.models.network.pi05 import Pi05, Prefix
from z1_ros.policy.transforms import Preprocessor, normalize, unnormalize
from z1_ros.specs import Embodiment
from z1_ros.types import Observation

Keys = Sequence[tuple[int, ...]]
"""Key of each chunk, as integers; equal keys give equal noise, independent of the batch."""
Inputs = dict[str, Tensor]
"""Arguments of ``Pi05.prefix``, by name."""


@dataclass(frozen=True, slots=True)
class SampledChunk:
    """One action chunk, sampled with exploration noise for one observation."""

    actions: np.ndarray
    """Actions (horizon, action_dim) float32 in the robot's units and order."""
    row: int
    """Row of ``RolloutFeatures`` with the observation's features; -1: not stored."""
    end: Tensor
    """Normalised actions at the end of denoising (H, action_dim)."""
    chain: Transitions
    """Stochastic steps of the chunk, without the batch dimension."""
    log_probs: Tensor
    """Element-wise log-probabilities of the stochastic steps (S, H, action_dim)."""


class Sampler:
    """Computes action chunks, sampled with the flow-SDE or by the deterministic flow."""

    def __init__(self, network: Pi05, bundle: Bundle, robot: Embodiment, seed: int):
        """Prepare preprocessing as in the bundle, and actions in the order of the robot.

        Each call uses the current weights of the network; ``seed`` is that of all noise.
        """
        self.network = network
        self.manifest = bundle.manifest
        tokenizer = PromptTokenizer(bundle.tokenizer, self.manifest.prompt.max_tokens)
        self._preprocess = Preprocessor(self.manifest, tokenizer)
        dims = self.manifest.contract.action_dims
        self.real_dims = len(dims)
        self._order = [dims.index(name) for name in robot.action_dims]
        scaling = self.manifest.normalization
        self._scaling = (scaling.action, scaling.action_mode or scaling.mode, scaling.form)
        self.limits = robot.action_limits()
        self._seed = seed

    def encode(self, observations: Sequence[Observation]) -> tuple[Prefix, Inputs]:
        """Encode observations; return their prefix and the network inputs."""
        prepared = [self._preprocess(observation) for observation in observations]
        inputs = {
            name: torch.from_numpy(np.stack([p[name] for p in prepared])) for name in prepared[0]
        }
        with torch.no_grad():
            return self.network.prefix(**inputs), inputs

    def follow(
        self, observations: Sequence[Observation], keys: Keys
    ) -> tuple[list[np.ndarray], Prefix]:
        """Return chunks (horizon, action_dim) by the deterministic flow, as a deployed policy does.

        The second value is the encoded observations.
        """
        prefix, _ = self.encode(observations)
        start = self._noise(keys, 1)[:, 0]
        with torch.no_grad():
            actions = self.network.sample(prefix, start, self.manifest.denoise_steps)
        return self._in_robot_units(actions), prefix

    def sample(
        self, prefix: Prefix, rows: Sequence[int], keys: Keys, sde: FlowSde
    ) -> list[SampledChunk]:
        """Sample a chunk for each encoded observation, stored in ``rows``; its key seeds its noise.

        Raises Diverged if the network's actions are not finite.
        """
        noise = self._noise(keys, 1 + sde.noises)
        index = torch.tensor([self._random(key, 1).integers(sde.noisy_steps) for key in keys])
        start = noise[:, 0]
        actions, chain, log_probs = sample(self.network, prefix, start, index, noise[:, 1:], sde)
        return [
            SampledChunk(
                actions=chunk,
                row=row,
                end=actions[i],
                chain=Transitions(*(part[i] for part in chain)),
                log_probs=log_probs[i],
            )
            for i, (chunk, row) in enumerate(zip(self._in_robot_units(actions), rows, strict=True))
        ]

    def action_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest actions (action_dim,): normalised -1 and 1, in limits."""
        one = torch.ones(1, self.network.geometry.action_dim)
        ends = np.sort(self._in_robot_units(torch.stack([-one, one])), 0)[:, 0]
        low, high = self.limits
        return np.maximum(ends[0], low), np.minimum(ends[1], high)

    def normalized(self, chunks: np.ndarray) -> Tensor:
        """Normalise a robot's chunks (…, horizon, action_dim) to the network's output format."""
        wanted = np.empty_like(chunks)
        wanted[..., self._order] = chunks
        actions = normalize(wanted, *self._scaling)
        padded = torch.zeros(*chunks.shape[:-1], self.network.geometry.action_dim)
        padded[..., : self.real_dims] = torch.from_numpy(actions)
        return padded

    def _in_robot_units(self, actions: Tensor) -> list[np.ndarray]:
        if not actions.isfinite().all():
            raise Diverged("it gives actions that are not finite")
        wanted = actions[..., : self.real_dims].numpy()
        return list(unnormalize(wanted, *self._scaling)[..., self._order])

    def _noise(self, keys: Keys, count: int) -> Tensor:
        """Return standard normal noise (B, count, H, action_dim), seeded by each chunk's key."""
        geometry = self.network.geometry
        shape = (count, geometry.horizon, geometry.action_dim)
        drawn = [self._random(key, 0).standard_normal(shape, np.float32) for key in keys]
        return torch.from_numpy(np.stack(drawn))

    def _random(self, key: tuple[int, ...], stream: int) -> np.random.Generator:
        words = np.random.SeedSequence([self._seed, stream, *key]).generate_state(2, np.uint64)
        return np.random.Generator(np.random.Philox(key=words))
