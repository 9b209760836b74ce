"""Exponential moving average of weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """The average of parameters that are being trained."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, warmup: int = 10):
        """Start the average with the current values; with decay 0, no average is stored.

        After n updates, the decay is at most n / (n + warmup). With warmup 1, the average is the
        plain mean of all values so far, including the initial ones, until ``decay`` is smaller.
        """
        self.tensors = {n: p.detach().clone() for n, p in parameters.items()} if decay else {}
        self._parameters = parameters
        self._decay = decay
        self._warmup = warmup

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the values after optimiser step ``step``, counted from 1."""
        if not self.tensors:
            return
        # The decay is smaller at first, so that the initial weights soon lose their influence.
        decay = min(self._decay, step / (step + self._warmup))
        present = [self._parameters[name] for name in self.tensors]
        torch._foreach_lerp_(list(self.tensors.values()), present, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Use the averaged weights as parameters inside the ``with`` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # One tensor at a time, because memory may not suffice for a third set of weights.
        for name, averaged in self.tensors.items():
            trained = self._parameters[name]
            kept = trained.detach().clone()
            trained.copy_(averaged)
            averaged.copy_(kept)
