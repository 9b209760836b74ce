"""A policy whose model can be replaced while a control loop uses it."""

import threading
from collections.abc import Sequence

from z1_ros.policy.base import Policy
from z1_ros.specs import Contract
from z1_ros.types import ActionChunk, Observation


class ReplaceablePolicy:
    """Forwards all calls to the present policy; see ``z1_ros.policy.base.Policy``.

    Each chunk comes from one policy: a running inference ends with the policy that started it.
    """

    def __init__(self, policy: Policy):
        self._policy = policy
        self._seed = 0
        self._lock = threading.Lock()  # a reset may come from the thread that infers

    @property
    def contract(self) -> Contract:
        """Contract of the present policy; every replacement must have an equal contract."""
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
        """Return the action chunk for an observation."""
        return self._policy.infer(observation)

    def infer_batch(
        self, observations: Sequence[Observation], seeds: Sequence[int]
    ) -> list[ActionChunk]:
        """Return the chunks of several observations, each with its own noise seed."""
        return self._policy.infer_batch(observations, seeds)
