"""The protocols of a policy and of the backend that runs its network."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from z1_ros.specs import Contract
from z1_ros.types import ActionChunk, Observation


class Policy(Protocol):
    """Computes action chunks from observations.

    The noise of a flow policy depends only on the seed and on the observation stamp. A chunk
    therefore depends neither on earlier inferences nor on the process.
    """

    @property
    def contract(self) -> Contract:
        """Cameras, fields, control rate and horizon that the policy was trained on."""
        ...

    def reset(self, seed: int) -> None:
        """Begin an episode whose noise is drawn from ``seed``."""
        ...

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the action chunk for an observation.

        Raises:
            ObservationError: A camera or state field is missing or malformed.
        """
        ...

    def infer_batch(
        self, observations: Sequence[Observation], seeds: Sequence[int]
    ) -> list[ActionChunk]:
        """Return the chunks of several observations, each with its own noise seed."""
        ...


class Backend(Protocol):
    """Runs one graph (``prefix`` or ``denoise``) of a bundle."""

    name: str
    """``onnxruntime`` or ``torch``."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate the graph on named arrays and return its named outputs.

        The outputs of ``prefix`` are inputs of ``denoise``. They may therefore be arrays of the
        backend's own type on its own device; ``v_t`` is a NumPy array.
        """
        ...
