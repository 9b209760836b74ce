"""The inputs and outputs of a bundle's graphs: one table for export, backends and checks.

``prefix`` encodes an observation, ``denoise`` computes one denoise step from noise to actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from z1_ros.errors import BundleError
from z1_ros.models.network.geometry import Geometry

GRAPHS = ("prefix", "denoise")
"""Graphs of every bundle; each task expert adds its own ``denoise`` graph."""
BATCH = "batch"
"""Name of the dimension of any size."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a graph."""

    dtype: str
    """``float32``, ``int64`` or ``bool``."""
    shape: tuple[str | int, ...]
    """Dimensions: ``batch``, names of ``Geometry`` attributes, or numbers."""

    @property
    def batch_axis(self) -> int:
        """Index of the batch dimension."""
        return self.shape.index(BATCH)

    def sizes(self, geometry: Geometry) -> tuple[int | None, ...]:
        """Return the shape as numbers, with None for the batch dimension."""
        return tuple(
            size if isinstance(size, int) else None if size == BATCH else getattr(geometry, size)
            for size in self.shape
        )


_KEYS = Port("float32", ("depth", BATCH, "kv_heads", "prefix_tokens", "head_dim"))
_ACTIONS = Port("float32", (BATCH, "horizon", "action_dim"))
_PREFIX = {
    "k": _KEYS,
    "v": _KEYS,
    "pad": Port("bool", (BATCH, "prefix_tokens")),  # name of ``Prefix.valid`` in the file format
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
"""Graph -> input name -> type and shape, in the order of the graph."""
OUTPUTS: Mapping[str, Mapping[str, Port]] = {"prefix": _PREFIX, "denoise": {"v_t": _ACTIONS}}
"""Graph -> output name -> type and shape, in the order of the graph."""


def kind_of(graph: str) -> str:
    """Return the kind of a graph, ``prefix`` or ``denoise``, which defines inputs and outputs."""
    return "prefix" if graph == "prefix" else "denoise"


Found = Mapping[str, tuple[str, tuple[int | None, ...]]]
"""Name -> type and shape in the graph file; None is a dimension of any size."""


def check_ports(
    graph: str, inputs: Found, outputs: Found, geometry: Geometry, source: object
) -> None:
    """Raise BundleError if a name, type or size differs from those that the geometry needs.

    The sizes of outputs may be undefined in the file. ``source`` names the graph in errors.
    """
    kind = kind_of(graph)
    for what, found, known in (("input", inputs, INPUTS[kind]), ("output", outputs, OUTPUTS[kind])):
        if found.keys() != known.keys():
            raise BundleError(
                f"{source} has the {what}s {', '.join(found) or 'none'}; a graph {kind} has "
                f"{', '.join(known)}"
            )
        for name, port in known.items():
            dtype, shape = found[name]
            wanted = port.sizes(geometry)
            if what == "output" and len(shape) == len(wanted):
                shape = tuple(w if s is None else s for s, w in zip(shape, wanted, strict=True))
            if (dtype, shape) != (port.dtype, wanted):
                raise BundleError(
                    f"{source}: {what} {name} is {dtype} {_text(shape)}, the geometry of the "
                    f"bundle needs {port.dtype} {_text(wanted)}"
                )


def _text(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join(BATCH if size is None else str(size) for size in shape)})"
