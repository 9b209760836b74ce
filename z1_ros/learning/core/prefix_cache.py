"""Encoded observations in main memory: what a frozen VLM has to compute only once."""

from collections.abc import Callable

import torch
from torch import Tensor

from z1_ros.errors import TrainingError
from z1_ros.models.network.pi05 import Prefix


class PrefixCache:
    """Keys and values of observations, by row number, in the precision they were computed in.

    A row can be written again, so a cache serves one rollout after another.
    """

    def __init__(self, rows: int, example: Prefix, limit_gb: float):
        """Reserve memory; the system grants it as rows are written.

        Args:
            rows: Observations to hold, if they fit.
            example: A prefix of any batch size, for shapes and precision.
            limit_gb: Memory that may be used [GB].

        Raises:
            TrainingError: Not one row fits.
        """
        depth, _, heads, length, width = example.k.shape
        each = example.k[:, 0].nbytes + example.v[:, 0].nbytes + length
        self.capacity = min(rows, int(limit_gb * 1e9) // each)
        if not self.capacity:
            raise TrainingError(
                f"an encoded observation takes {each / 1e9:.4f} GB, so none fits into a prefix "
                f"cache of {limit_gb} GB; all {rows} need {rows * each / 1e9:.2f} GB"
            )
        shape = (self.capacity, 2, depth, heads, length, width)
        self._kv = torch.empty(shape, dtype=example.k.dtype)
        self._valid = torch.empty((self.capacity, length), dtype=torch.bool)
        self._written = torch.zeros(self.capacity, dtype=torch.bool)

    def holds(self, rows: Tensor) -> Tensor:
        """Return which of ``rows`` (B,) are written, (B,) bool."""
        fits = rows < self.capacity
        return fits & self._written[rows.where(fits, 0)]

    def write(self, rows: Tensor, prefix: Prefix) -> None:
        """Keep ``prefix`` (batch B) as ``rows`` (B,); rows beyond the capacity are left out."""
        rows = rows.cpu()
        fits = rows < self.capacity
        rows = rows[fits]
        for part, values in enumerate((prefix.k, prefix.v)):
            self._kv[rows, part] = values.detach().cpu().movedim(1, 0)[fits]
        self._valid[rows] = prefix.valid.cpu()[fits]
        self._written[rows] = True

    def read(self, rows: Tensor, device: torch.device) -> Prefix:
        """Return written ``rows`` (B,) as a prefix of batch B on ``device``."""
        k, v = self._kv[rows.cpu()].to(device).movedim(0, 2)
        return Prefix(k, v, self._valid[rows.cpu()].to(device))

    def fetch(self, rows: Tensor, encode: Callable[[Tensor], Prefix]) -> Prefix:
        """Return a prefix for ``rows`` (B,), on their device.

        Args:
            rows: Row numbers, written or not.
            encode: Encodes those that are not; it is given their places (M,) in ``rows``.
        """
        held = self.holds(rows.cpu()).to(rows.device)
        if held.all():
            return self.read(rows, rows.device)
        at, missing = held.nonzero()[:, 0], (~held).nonzero()[:, 0]
        fresh = encode(missing)
        if not len(at):
            return fresh
        kept = self.read(rows[at], rows.device)
        back = torch.cat([at, missing]).argsort()
        return Prefix(
            torch.cat([kept.k, fresh.k], 1)[:, back],
            torch.cat([kept.v, fresh.v], 1)[:, back],
            torch.cat([kept.valid, fresh.valid])[back],
        )
