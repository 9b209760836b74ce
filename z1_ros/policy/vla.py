"""The VLA policy: input transforms, a network of two graphs, output transforms."""

from collections.abc import Mapping, Sequence

import numpy as np

from z1_ros.errors import ActionError
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.task_experts import BASE, denoise_graph
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.policy.base import Backend
from z1_ros.policy.transforms import Preprocessor, unnormalize
from z1_ros.types import ActionChunk, Observation


def flow_noise(seed: int, stamp_ns: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return standard normal float32 noise, determined by seed and observation stamp [ns]."""
    bits = np.array([seed, stamp_ns], np.int64).view(np.uint64)
    return np.random.Generator(np.random.Philox(key=bits)).standard_normal(shape, np.float32)


class VlaPolicy:
    """A π0.5-class policy; see ``z1_ros.policy.base.Policy``."""

    def __init__(self, bundle: Bundle, backends: Mapping[str, Backend]):
        """Combine a verified bundle with a backend for each of ``manifest.graphs``."""
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.contract = bundle.manifest.contract
        self.backends = backends
        geometry = self.manifest.geometry
        self._preprocess = Preprocessor(
            self.manifest,
            PromptTokenizer(bundle.tokenizer, self.manifest.prompt.max_tokens, geometry["vocab"]),
        )
        self._seed = 0
        self._chunk_shape = (geometry["horizon"], geometry["action_dim"])

    def reset(self, seed: int) -> None:
        """Begin an episode whose noise is drawn from ``seed``."""
        self._seed = seed

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the action chunk for an observation.

        Raises:
            ObservationError: A camera or state field is missing or malformed.
            ActionError: The actions are not finite.
            BundleError: Several task experts match the instruction.
        """
        return self.infer_batch([observation], [self._seed])[0]

    def infer_batch(
        self, observations: Sequence[Observation], seeds: Sequence[int]
    ) -> list[ActionChunk]:
        """Return the chunks of several observations, each with its own noise seed.

        Observations with the same action expert are computed in one batch.
        """
        rows: dict[str, list[int]] = {}
        for row, observation in enumerate(observations):
            expert = self.manifest.expert_for(observation.instruction)
            rows.setdefault(expert, []).append(row)
        chunks: dict[int, ActionChunk] = {}
        for expert, own in rows.items():
            seen, drawn = [observations[i] for i in own], [seeds[i] for i in own]
            chunks |= dict(zip(own, self._infer(seen, drawn, expert), strict=True))
        return [chunks[row] for row in range(len(observations))]

    def infer_each(self, observation: Observation) -> list[ActionChunk]:
        """Return the chunk of every action expert, to check that each of them works."""
        names = (BASE, *self.manifest.experts)
        return [self._infer([observation], [self._seed], name)[0] for name in names]

    def _infer(
        self, observations: Sequence[Observation], seeds: Sequence[int], expert: str
    ) -> list[ActionChunk]:
        prepared = [self._preprocess(observation) for observation in observations]
        inputs = {name: np.stack([p[name] for p in prepared]) for name in prepared[0]}
        prefix = self.backends["prefix"].run(inputs)
        noise = [
            flow_noise(seed, observation.stamp_ns, self._chunk_shape)
            for seed, observation in zip(seeds, observations, strict=True)
        ]
        actions = self._integrate(np.stack(noise), prefix, expert)
        return [
            ActionChunk(actions=chunk, dims=self.contract.action_dims, stamp_ns=o.stamp_ns)
            for chunk, o in zip(actions, observations, strict=True)
        ]

    def _integrate(
        self, x: np.ndarray, prefix: Mapping[str, np.ndarray], expert: str
    ) -> np.ndarray:
        """Integrate noise (B, horizon, action_dim) to actions in the robot's units (Euler)."""
        denoise = self.backends[denoise_graph(expert)]
        steps = self.manifest.denoise_steps
        for step in range(steps):
            time = np.full(len(x), 1 - step / steps, np.float32)
            velocity = denoise.run({"x_t": x, "time": time, **prefix})["v_t"]
            if velocity.shape != x.shape:
                raise ActionError(
                    f"bundle {self.manifest.name!r} gave v_t {velocity.shape}, expected {x.shape}"
                )
            x = x - velocity / np.float32(steps)
        if not np.isfinite(x).all():
            by = f"expert {expert!r} of bundle" if expert else "bundle"
            raise ActionError(f"{by} {self.manifest.name!r} gave actions that are not finite")
        scaling = self.manifest.normalization
        wanted = x[..., : len(self.contract.action_dims)]
        return unnormalize(wanted, scaling.action, scaling.mode_of_actions, scaling.form)
