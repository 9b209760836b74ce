"""The inputs and outputs of a bundle's graphs: one table for export, backends and checks.

``prefix`` encodes an observation, ``denoise`` takes one step of the flow from noise to actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from z1_ros.models.network.geometry import Geometry

GRAPHS = ("prefix", "denoise")
"""Every bundle's graphs; each of its task experts has one more, another ``denoise``."""
BATCH = "batch"
"""The dimension that may have any size."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output."""

    dtype: str
    """``float32``, ``int64`` or ``bool``."""
    shape: tuple[str | int, ...]
    """``batch``, attributes of ``Geometry``, or numbers."""

    @property
    def batch_axis(self) -> int:
        """Which dimension is the batch."""
        return self.shape.index(BATCH)

    def sizes(self, geometry: Geometry) -> tuple[int | None, ...]:
        """Return the shape in numbers, the batch as None."""
        return tuple(
            size if isinstance(size, int) else None if size == BATCH else getattr(geometry, size)
            for size in self.shape
        )


_KEYS = Port("float32", ("depth", BATCH, "kv_heads", "prefix_tokens", "head_dim"))
_ACTIONS = Port("float32", (BATCH, "horizon", "action_dim"))
_PREFIX = {
    "k": _KEYS,
    "v": _KEYS,
    "pad": Port("bool", (BATCH, "prefix_tokens")),  # the file format's name of ``Prefix.valid``
}
INPUTS: Mapping[str, Mapping[str, Port]] = {
    "prefix": {
        "images": Port("float32", (BATCH, "cameras", 3, "image_size", "image_size")),
        "image_mask": Port("bool", (BATCH, "cameras")),
        "tokens": Port("int64", (BATCH, "prompt_tokens")),
        "token_mask": Port("bool", (BATCH, "prompt_tokens")),
    },
    "denoise": {"x_t": _ACTIONS, "time": Port("float32", (BATCH,)), **_PREFIX},
}
"""Graph -> name of each input -> what it is, in the order of the graph."""
OUTPUTS: Mapping[str, Mapping[str, Port]] = {"prefix": _PREFIX, "denoise": {"v_t": _ACTIONS}}
"""Graph -> name of each output -> what it is, in the order of the graph."""


def kind_of(graph: str) -> str:
    """Return ``prefix`` or ``denoise``, whose inputs and outputs a graph of that name has."""
    return "prefix" if graph == "prefix" else "denoise"
