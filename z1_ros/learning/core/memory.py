"""Encoded observations of one iteration, or their inputs where the VLM is trained too."""

from collections.abc import Sequence

import torch
from torch import Tensor

from z1_ros.models.network.pi05 import Pi05, Prefix


class Memory:
    """Keeps what the update needs of each observation that will be trained on."""

    def __init__(self, network: Pi05, *, joint: bool, limit_gb: float = 8.0):
        """Start empty.

        Args:
            network: Encodes again where the VLM is trained, and what did not fit.
            joint: The VLM is trained: keep inputs instead of keys and values.
            limit_gb: Memory for keys and values [GB]; of what does not fit, inputs are kept.
        """
        self._network = network
        self._joint = joint
        self._limit = 0 if joint else int(limit_gb * 1e9)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._encoded: dict[int, tuple[Tensor, ...]] = {}
        self._inputs: dict[int, tuple[Tensor, ...]] = {}
        self._bytes = 0

    def __call__(
        self, prefix: Prefix, inputs: dict[str, Tensor], wanted: Sequence[bool]
    ) -> list[int]:
        """Keep the wanted ones of a batch; return each one's row, -1 if it was not wanted."""
        self._names = sorted(inputs)
        return [self._keep(prefix, inputs, i) if keep else -1 for i, keep in enumerate(wanted)]

    def _keep(self, prefix: Prefix, inputs: dict[str, Tensor], i: int) -> int:
        row = len(self._encoded) + len(self._inputs)
        parts = (prefix.k[:, i], prefix.v[:, i], prefix.valid[i])
        size = sum(part.nbytes for part in parts)
        if self._bytes + size <= self._limit:
            self._bytes += size
            self._encoded[row] = tuple(part.clone() for part in parts)
        else:
            self._inputs[row] = tuple(inputs[name][i].clone() for name in self._names)
        return row

    def prefix_of(self, rows: Tensor) -> Prefix:
        """Return the encoded observations of rows (B,), with gradients if the VLM is trained."""
        numbers = rows.tolist()
        if self._joint:
            return self._encode(numbers)
        encoded = {row: self._encoded[row] for row in numbers if row in self._encoded}
        if missing := [row for row in dict.fromkeys(numbers) if row in self._inputs]:
            with torch.no_grad():
                fresh = self._encode(missing)
            for i, row in enumerate(missing):
                encoded[row] = (fresh.k[:, i], fresh.v[:, i], fresh.valid[i])
        k, v, valid = zip(*(encoded[row] for row in numbers), strict=True)
        return Prefix(torch.stack(k, 1), torch.stack(v, 1), torch.stack(valid))

    def _encode(self, rows: Sequence[int]) -> Prefix:
        parts = zip(*(self._inputs[row] for row in rows), strict=True)
        return self._network.prefix(
            **{name: torch.stack(part) for name, part in zip(self._names, parts, strict=True)}
        )
