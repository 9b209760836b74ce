"""Store of prefix features: encoded observations, which a frozen VLM computes only once."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from z1_ros.models.network.pi05 import Prefix


class FeatureStore:
    """Keys, values and validity of encoded observations in main memory, by row number."""

    def __init__(self, limit_gb: float = math.inf):
        """Start empty, for at most ``limit_gb`` [GB]."""
        self._limit = limit_gb * 1e9
        self.clear()

    def clear(self) -> None:
        """Remove all rows."""
        self._rows: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: int) -> bool:
        return row in self._rows

    def put(self, row: int, prefix: Prefix, at: int) -> bool:
        """Store the observation at index ``at`` of a batch as a row; return False if it is full."""
        parts = (prefix.k[:, at], prefix.v[:, at], prefix.valid[at])
        size = sum(part.nbytes for part in parts)
        if row not in self._rows:
            if self._bytes + size > self._limit:
                return False
            self._bytes += size
        k, v, valid = (part.detach().to("cpu", copy=True) for part in parts)
        self._rows[row] = (k, v, valid)
        return True

    def read(self, rows: Sequence[int], device: torch.device | str = "cpu") -> Prefix:
        """Return rows (B,) as a prefix of batch size B, in the stored precision."""
        k, v, valid = zip(*(self._rows[row] for row in rows), strict=True)
        parts = (torch.stack(k, 1), torch.stack(v, 1), torch.stack(valid))
        return Prefix(*(part.to(device) for part in parts))

    def fetch(self, rows: Tensor, encode: Callable[[Tensor], Prefix]) -> Prefix:
        """Return a prefix for rows (B,), on their device.

        ``encode`` encodes the rows that are not stored, given their indices (M,) in ``rows``.
        """
        numbers = rows.tolist()
        held = torch.tensor([row in self._rows for row in numbers])
        if held.all():
            return self.read(numbers, rows.device)
        at, missing = held.nonzero()[:, 0], (~held).nonzero()[:, 0]
        fresh = encode(missing.to(rows.device))
        if not len(at):
            return fresh
        kept = self.read([numbers[i] for i in at], rows.device)
        back = torch.cat([at, missing]).argsort().to(rows.device)
        return Prefix(
            torch.cat([kept.k, fresh.k], 1)[:, back],
            torch.cat([kept.v, fresh.v], 1)[:, back],
            torch.cat([kept.valid, fresh.valid])[back],
        )
