"""The two protocols of this folder."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from z1_ros.specs import Contract
from z1_ros.types import ActionChunk, Observation


class Policy(Protocol):
    """Turns observations into action chunks.

    The noise a flow policy starts from is a function of (seed, observation stamp) alone, so a
    chunk does not depend on how many were asked for before, nor on which process asks.
    """

    @property
    def contract(self) -> Contract:
        """Cameras, fields, rate and horizon it was trained on."""
        ...

    def reset(self, seed: int) -> None:
        """Begin an episode whose noise is drawn from ``seed``."""
        ...

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the next actions.

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

        What ``prefix`` gives is handed to ``denoise`` untouched, so it may be arrays of the
        backend's own kind, on its own device; ``v_t`` is a NumPy array.
        """
        ...
