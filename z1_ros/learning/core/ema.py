"""Exponential moving average of weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """The average of parameters that are being trained."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, warmup: int = 10):
        """Start from the present values.

        Args:
            parameters: What is averaged, by name.
            decay: Of the average; 0 keeps no average, and no memory: it is the weights themselves.
            warmup: After n updates the decay is at most n / (n + warmup). With 1 the average is the
                plain mean of all values so far, the initial ones included, until ``decay`` is less.
        """
        self.tensors = {n: p.detach().clone() for n, p in parameters.items()} if decay else {}
        self._parameters = parameters
        self._decay = decay
        self._warmup = warmup

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the values after optimiser step ``step``, the first of which is 1."""
        if not self.tensors:
            return
        # A short memory at first, or the average would hold the initial weights for long.
        decay = min(self._decay, step / (step + self._warmup))
        present = [self._parameters[name] for name in self.tensors]
        torch._foreach_lerp_(list(self.tensors.values()), present, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the parameters for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # One by one: both sets exist already, a third would not always fit.
        for name, averaged in self.tensors.items():
            trained = self._parameters[name]
            kept = trained.detach().clone()
            trained.copy_(averaged)
            averaged.copy_(kept)
