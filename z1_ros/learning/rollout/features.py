"""Storage of a rollout's observations for the update: prefix features, or network inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from z1_ros.learning.core.feature_store import FeatureStore
from z1_ros.learning.rollout.sampler import Inputs
from z1_ros.models.network.pi05 import Pi05, Prefix


class RolloutFeatures:
    """Stores those observations of one iteration that will be trained on."""

    def __init__(self, network: Pi05, *, joint: bool, limit_gb: float = 8.0):
        """Start empty.

        If the VLM is trained (``joint``), or if ``limit_gb`` of memory [GB] is full, inputs are
        stored instead of features; the network encodes them when features are needed.
        """
        self._network = network
        self._joint = joint
        self._store = FeatureStore(limit_gb)
        self.clear()

    def clear(self) -> None:
        """Remove all observations."""
        self._store.clear()
        self._inputs: dict[int, Inputs] = {}

    def keep(self, prefix: Prefix, inputs: Inputs, wanted: Sequence[bool]) -> list[int]:
        """Store the wanted observations of a batch; return the row of each, -1 if not wanted."""
        rows = []
        for at, is_wanted in enumerate(wanted):
            row = len(self._store) + len(self._inputs) if is_wanted else -1
            if is_wanted and (self._joint or not self._store.put(row, prefix, at)):
                self._inputs[row] = {name: part[at].clone() for name, part in inputs.items()}
            rows.append(row)
        return rows

    def prefix_of(self, rows: Tensor) -> Prefix:
        """Return the encoded observations of rows (B,), with gradients if the VLM is trained."""
        if self._joint:
            return self._encode(rows.tolist())
        return self._store.fetch(rows, lambda places: self._encode_once(rows[places].tolist()))

    @torch.no_grad()
    def _encode_once(self, rows: Sequence[int]) -> Prefix:
        """Encode rows that may repeat; each different row is encoded only once."""
        unique = list(dict.fromkeys(rows))
        fresh, at = self._encode(unique), [unique.index(row) for row in rows]
        return Prefix(fresh.k[:, at], fresh.v[:, at], fresh.valid[at])

    def _encode(self, rows: Sequence[int]) -> Prefix:
        inputs = [self._inputs[row] for row in rows]
        names = inputs[0]
        return self._network.prefix(**{n: torch.stack([each[n] for each in inputs]) for n in names})
