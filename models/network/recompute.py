"""Gradient checkpointing: the backward pass recomputes a layer's activations."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, *inputs: Any, recompute: bool, **named: Any) -> Tensor:
    """Return ``layer(*inputs, **named)``; do not store its activations if ``recompute``."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False, **named)
    return layer(*inputs, **named)
