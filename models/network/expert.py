"""The action expert: Gemma layers whose norms depend on the flow time (adaRMS).

Source: openpi ``src/openpi/models/{gemma,pi0}.py``.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaAttention, GemmaMLP

from z1_ros.models.network.gemma import (
    attend,
    gemma_config,
    rms_normalize,
    rope_angles,
    rotate,
    split_heads,
)
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.recompute import run_layer

MIN_PERIOD = 4e-3
MAX_PERIOD = 4.0


def turn_rates(width: int) -> Tensor:
    """Return turns per unit of time of each sine (3, width / 2): total, 12-bit part, rest."""
    fraction = np.linspace(0, 1, width // 2)
    turns = 1 / (MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** fraction)
    scale = 2.0 ** (12 - np.ceil(np.log2(turns)))
    coarse = np.round(turns * scale) / scale
    return torch.from_numpy(np.stack([turns, coarse, turns - coarse]).astype(np.float32))


def time_features(time: Tensor, rates: Tensor) -> Tensor:
    """Return the sinusoidal features (B, width) of flow times (B,): sines, then cosines.

    The fastest sine makes 250 turns over the flow, so a float32 angle is accurate only to 1e-5. The
    published network computes in float64, which TensorRT lacks. Here time and rate are split into a
    coarse part of 12 bits and a small rest. The product of the coarse parts is exact, so its whole
    turns can be removed. The float32 result has the accuracy of float64.
    """
    turns, coarse, fine = rates
    time = time.float()[:, None]
    coarse_time = torch.round(time * 4096) / 4096
    whole = coarse_time * coarse
    rest = coarse_time * fine + (time - coarse_time) * turns
    angles = (whole - torch.floor(whole) + rest) * (2 * math.pi)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class AdaRMSNorm(nn.Module):
    """Root-mean-square norm with scale, shift and a gate computed from a condition."""

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised x (B, T, width) and the gate (B, 1, width) of the following branch."""
        condition = condition.to(self.dense.weight.dtype)
        scale, shift, gate = self.dense(condition).float()[:, None].chunk(3, dim=-1)
        return rms_normalize(x) * (1 + scale) + shift, gate


class ExpertAttention(GemmaAttention):
    """Gemma's projections with attention of the suffix over the keys of prefix and suffix."""

    def forward(
        self, x: Tensor, angles: Tensor, prefix_k: Tensor, prefix_v: Tensor, key_mask: Tensor
    ) -> Tensor:
        """Map normalised x (B, H, width) to the same shape."""
        q, k, v = (
            split_heads(proj(x), self.head_dim) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        k = torch.cat([prefix_k, rotate(k, angles)], dim=2)
        v = torch.cat([prefix_v, v], dim=2)
        return self.o_proj(attend(rotate(q, angles), k, v, key_mask))


class ExpertLayer(nn.Module):
    """One layer: attends to its own keys and to the prefix keys of the same VLM layer."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        width = geometry.expert_width
        config = gemma_config(geometry, width, geometry.expert_mlp)
        self.input_layernorm = AdaRMSNorm(width)
        self.self_attn = ExpertAttention(config, layer_idx=0)
        self.post_attention_layernorm = AdaRMSNorm(width)
        self.mlp = GemmaMLP(config)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        angles: Tensor,
        prefix_k: Tensor,
        prefix_v: Tensor,
        key_mask: Tensor,
    ) -> Tensor:
        """Map x (B, H, width) to the same shape."""
        dtype = self.mlp.up_proj.weight.dtype
        normed, gate = self.input_layernorm(x, condition)
        x = x + gate * self.self_attn(normed.to(dtype), angles, prefix_k, prefix_v, key_mask)
        normed, gate = self.post_attention_layernorm(x, condition)
        return x + gate * self.mlp(normed.to(dtype))


class ActionExpert(nn.Module):
    """The layers and the final norm of the action expert."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.head_dim = geometry.head_dim
        self.rope_dtype = torch.float32
        self.recompute = False
        self.layers = nn.ModuleList(ExpertLayer(geometry) for _ in range(geometry.depth))
        self.norm = AdaRMSNorm(geometry.expert_width)

    def forward(self, x: Tensor, condition: Tensor, k: Tensor, v: Tensor, valid: Tensor) -> Tensor:
        """Map embedded noisy actions x (B, H, width) to the same shape.

        The condition is (B, width), keys and values of the prefix are (depth, B, kv_heads, P,
        head_dim), and ``valid`` (B, P) is true where a prefix token is valid.
        """
        # The residual stream stays float32; for so few tokens the cost is negligible.
        x = x.float()
        first: Any = self.layers[0]
        dtype = first.self_attn.q_proj.weight.dtype
        k, v = k.to(dtype), v.to(dtype)
        positions = valid.long().sum(1, keepdim=True) + torch.arange(x.shape[1], device=x.device)
        angles = rope_angles(positions, self.head_dim, self.rope_dtype)
        key_mask = torch.cat([valid, torch.ones_like(x[..., 0], dtype=torch.bool)], dim=1)
        for layer, k_l, v_l in zip(self.layers, k.unbind(0), v.unbind(0), strict=True):
            inputs = (x, condition, angles, k_l, v_l, key_mask)
            x = run_layer(layer, *inputs, recompute=self.recompute)
        return self.norm(x, condition)[0]


class TimeMLP(nn.Module):
    """Maps the flow time to the condition of every adaRMS norm."""

    def __init__(self, width: int):
        super().__init__()
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)
        self.register_buffer("rates", turn_rates(width), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """Map times (B,) in [0, 1] to conditions (B, width)."""
        features = time_features(time, self.rates).to(self.time_mlp_in.weight.dtype)
        return F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(features))))

    def restore_buffers(self) -> None:
        """Restore the exact rates of a module that was built on the meta device or cast."""
        weight = self.time_mlp_in.weight
        device = "cpu" if weight.is_meta else weight.device
        self.rates = turn_rates(weight.shape[0]).to(device)

    def _apply(self, fn: Callable, recurse: bool = True) -> "TimeMLP":
        # A cast of the network must not round the rates.
        super()._apply(fn, recurse)
        self.restore_buffers()
        return self
