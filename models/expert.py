"""The action expert: Gemma layers whose norms are driven by the flow time (adaRMS).

Source: openpi ``src/openpi/models/{gemma,pi0}.py``.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from z1_ros.models.gemma import Attention, GatedMLP, attend, rms_normalize, rope_angles
from z1_ros.models.geometry import Geometry

MIN_PERIOD = 4e-3
MAX_PERIOD = 4.0


def turn_rates(width: int) -> Tensor:
    """Return the turns per unit of flow time of each sine: all, coarse part, rest (3, width / 2).

    See ``time_features``; the coarse part has 12 bits.
    """
    fraction = np.linspace(0, 1, width // 2)
    turns = 1 / (MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** fraction)
    scale = 2.0 ** (12 - np.ceil(np.log2(turns)))
    coarse = np.round(turns * scale) / scale
    return torch.from_numpy(np.stack([turns, coarse, turns - coarse]).astype(np.float32))


def time_features(time: Tensor, rates: Tensor) -> Tensor:
    """Return the sinusoidal features (B, width) of flow times (B,): sines, then cosines.

    The fastest sine turns 250 times over the flow, so a float32 angle is good to 1e-5 only. The
    published network computes in float64, which TensorRT lacks. Here time and rate are split
    into a coarse part of 12 bits, whose product is exact and can drop its whole turns, and a
    small rest: float64's result in float32.
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
        """Return normed x (B, T, width) and the gate (B, 1, width) of the branch it feeds."""
        scale, shift, gate = self.dense(condition)[:, None].chunk(3, dim=-1)
        normed = rms_normalize(x) * (1 + scale.float()) + shift.float()
        return normed.to(x.dtype), gate


class ExpertLayer(nn.Module):
    """One layer: its queries see the prefix's keys of the same layer and its own."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        width = geometry.expert_width
        self.input_layernorm = AdaRMSNorm(width)
        self.self_attn = Attention(width, geometry)
        self.post_attention_layernorm = AdaRMSNorm(width)
        self.mlp = GatedMLP(width, geometry.expert_mlp)

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
        normed, gate = self.input_layernorm(x, condition)
        k, v = self.self_attn.keys_values(normed, angles)
        k, v = torch.cat([prefix_k, k], dim=2), torch.cat([prefix_v, v], dim=2)
        attended = attend(self.self_attn.queries(normed, angles), k, v, key_mask)
        x = x + gate * self.self_attn.o_proj(attended)
        normed, gate = self.post_attention_layernorm(x, condition)
        return x + gate * self.mlp(normed)


class ActionExpert(nn.Module):
    """The expert's layers and final norm."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.head_dim = geometry.head_dim
        self.layers = nn.ModuleList(ExpertLayer(geometry) for _ in range(geometry.depth))
        self.norm = AdaRMSNorm(geometry.expert_width)

    def forward(self, x: Tensor, condition: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
        """Run the suffix over an encoded prefix.

        Args:
            x: Embedded noisy actions (B, H, width).
            condition: Time condition (B, width).
            k: Prefix keys (depth, B, kv_heads, P, head_dim).
            v: Prefix values, same shape.
            pad: (B, P) bool, true where a prefix token is valid.

        Returns:
            (B, H, width).
        """
        steps = torch.arange(x.shape[1], device=x.device)
        angles = rope_angles(pad.long().sum(1, keepdim=True) + steps, self.head_dim)
        key_mask = torch.cat([pad, torch.ones_like(x[..., 0], dtype=torch.bool)], dim=1)
        for layer, k_l, v_l in zip(self.layers, k.unbind(0), v.unbind(0), strict=True):
            x = layer(x, condition, angles, k_l, v_l, key_mask)
        return self.norm(x, condition)[0]


class TimeMLP(nn.Module):
    """Flow time to the condition of every adaRMS norm."""

    def __init__(self, width: int):
        super().__init__()
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)
        self.register_buffer("rates", turn_rates(width), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """Map times (B,) in [0, 1] to conditions (B, width)."""
        features = time_features(time, self.rates).to(self.time_mlp_in.weight.dtype)
        return F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(features))))

    def _apply(self, fn: Callable, recurse: bool = True) -> "TimeMLP":
        # A cast of the network must not round the rates.
        super()._apply(fn, recurse)
        weight = self.time_mlp_in.weight
        self.rates = turn_rates(weight.shape[0]).to(weight.device)
        return self
