"""A policy whose model can be exchanged while a control loop holds it."""

import threading
from collections.abc import Sequence

from z1_ros.policy.base import Policy
from z1_ros.specs import Contract
from z1_ros.types import ActionChunk, Observation


class ReplaceablePolicy:
    """Passes everything on to the present policy; see ``z1_ros.policy.base.Policy``.

    A chunk comes from one policy: an inference under way ends with the policy it began with.
    """

    def __init__(self, policy: Policy):
        self._policy = policy
        self._seed = 0
        self._lock = threading.Lock()  # a reset may come from the thread that infers

    @property
    def contract(self) -> Contract:
        """The present policy's; equal for all that take its place."""
        return self._policy.contract

    def replace(self, policy: Policy) -> None:
        """Use ``policy`` from now on, with the seed of the latest reset."""
        with self._lock:
            policy.reset(self._seed)
            self._policy = policy

    def reset(self, seed: int) -> None:
        """Begin an episode whose noise is drawn from ``seed``."""
        with self._lock:
            self._seed = seed
            self._policy.reset(seed)

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the next actions."""
        return self._policy.infer(observation)

    def infer_batch(
        self, observations: Sequence[Observation], seeds: Sequence[int]
    ) -> list[ActionChunk]:
        """Return the chunks of several observations, each with its own noise seed."""
        return self._policy.infer_batch(observations, seeds)
