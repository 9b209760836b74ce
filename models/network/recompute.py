"""Gradient checkpointing: a layer's activations are recomputed in the backward pass, not kept."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, *inputs: Any, recompute: bool, **named: Any) -> Tensor:
    """Return ``layer(*inputs, **named)``, without keeping its activations if ``recompute``."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False, **named)
    return layer(*inputs, **named)
