"""Encoded observations of one iteration, or their inputs where the VLM is trained too."""

from collections.abc import Sequence

import torch
from torch import Tensor

from z1_ros.models.pi05 import Pi05, Prefix


class Memory:
    """Keeps what the update needs of each observation that will be trained on."""

    def __init__(self, network: Pi05, *, joint: bool):
        """Start empty.

        Args:
            network: Encodes again where the VLM is trained.
            joint: The VLM is trained: keep inputs instead of keys and values.
        """
        self._network = network
        self._joint = joint
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._rows: list[tuple[Tensor, ...]] = []

    def __call__(
        self, prefix: Prefix, inputs: dict[str, Tensor], wanted: Sequence[bool]
    ) -> list[int]:
        """Keep the wanted ones of a batch; return each one's row, -1 if it was not wanted."""
        rows = []
        for i, keep in enumerate(wanted):
            if not keep:
                rows.append(-1)
                continue
            if self._joint:
                row = tuple(inputs[name][i].clone() for name in sorted(inputs))
            else:
                row = (prefix.k[:, i].clone(), prefix.v[:, i].clone(), prefix.pad[i].clone())
            rows.append(len(self._rows))
            self._rows.append(row)
        self._names = sorted(inputs)
        return rows

    def prefix_of(self, rows: Tensor) -> Prefix:
        """Return the encoded observations of rows (B,)."""
        picked = [self._rows[row] for row in rows.tolist()]
        if self._joint:
            parts = [torch.stack(part) for part in zip(*picked, strict=True)]
            return self._network.prefix(**dict(zip(self._names, parts, strict=True)))
        k, v, pad = zip(*picked, strict=True)
        return Prefix(torch.stack(k, 1), torch.stack(v, 1), torch.stack(pad))
