"""Gemma's parts, and the VLM half that turns a prefix into keys and values.

Source: openpi ``src/openpi/models/gemma.py``; rotary embedding: Su et al. 2021, half-split form.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from z1_ros.models.geometry import Geometry

RMS_EPS = 1e-6
ROPE_BASE = 10_000.0


def rms_normalize(x: Tensor) -> Tensor:
    """Return x (..., width) divided by its root mean square, in float32 whatever x is."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + RMS_EPS)


def rope_angles(positions: Tensor, head_dim: int) -> Tensor:
    """Return angles (B, T, head_dim / 2) [rad] of positions (B, T), in float32.

    Computed where it is needed, not kept in a buffer: a buffer would be rounded with the
    weights when a network is cast to bfloat16, which costs up to a radian at position 768.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    return positions.to(torch.float32)[..., None] / ROPE_BASE**exponent


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate heads x (B, heads, T, head_dim) by angles (B, T, head_dim / 2)."""
    angles = angles[:, None]
    sin, cos = angles.sin(), angles.cos()
    first, second = x.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return rotated.to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    """Grouped-query attention in which every query sees the same keys.

    In π0.5 a query either belongs to the prefix, which sees all valid prefix tokens, or to the
    suffix, which sees those and the whole suffix. So a mask over keys is enough, no row is ever
    fully masked, and the query heads of a group can be folded into the query axis.

    Args:
        q: Queries (B, heads, T, head_dim).
        k: Keys (B, kv_heads, S, head_dim).
        v: Values (B, kv_heads, S, head_dim).
        key_mask: (B, S) bool, true where a key may be attended to.

    Returns:
        (B, T, heads * head_dim).
    """
    batch, heads, length, head_dim = q.shape
    kv_heads = k.shape[1]
    folded = q.reshape(batch, kv_heads, heads // kv_heads * length, head_dim)
    attended = F.scaled_dot_product_attention(folded, k, v, attn_mask=key_mask[:, None, None])
    return attended.reshape(batch, heads, length, head_dim).transpose(1, 2).flatten(2)


class RMSNorm(nn.Module):
    """Root-mean-square norm with Gemma's ``1 + weight``."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return (rms_normalize(x) * (1 + self.weight.float())).to(x.dtype)


class KeyValue(nn.Module):
    """Projections of a layer that only has to provide keys and values."""

    def __init__(self, width: int, geometry: Geometry):
        super().__init__()
        self.head_dim = geometry.head_dim
        self.k_proj = nn.Linear(width, geometry.kv_heads * geometry.head_dim, bias=False)
        self.v_proj = nn.Linear(width, geometry.kv_heads * geometry.head_dim, bias=False)

    def keys_values(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotated keys and values, each (B, kv_heads, T, head_dim)."""
        return rotate(self._split(self.k_proj(x)), angles), self._split(self.v_proj(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class Attention(KeyValue):
    """Keys, values, queries and output of a whole attention block."""

    def __init__(self, width: int, geometry: Geometry):
        super().__init__(width, geometry)
        self.q_proj = nn.Linear(width, geometry.heads * geometry.head_dim, bias=False)
        self.o_proj = nn.Linear(geometry.heads * geometry.head_dim, width, bias=False)

    def queries(self, x: Tensor, angles: Tensor) -> Tensor:
        """Return rotated queries (B, heads, T, head_dim)."""
        return rotate(self._split(self.q_proj(x)), angles)


class GatedMLP(nn.Module):
    """GeGLU feed-forward block."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class PrefixLayer(nn.Module):
    """A VLM layer."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.input_layernorm = RMSNorm(geometry.vlm_width)
        self.self_attn = Attention(geometry.vlm_width, geometry)
        self.post_attention_layernorm = RMSNorm(geometry.vlm_width)
        self.mlp = GatedMLP(geometry.vlm_width, geometry.vlm_mlp)

    def forward(self, x: Tensor, angles: Tensor, pad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer's output (B, P, width) and its keys and values."""
        normed = self.input_layernorm(x)
        k, v = self.self_attn.keys_values(normed, angles)
        q = self.self_attn.queries(normed, angles)
        x = x + self.self_attn.o_proj(attend(q, k, v, pad))
        return x + self.mlp(self.post_attention_layernorm(x)), k, v


class LastPrefixLayer(nn.Module):
    """The last VLM layer: its output feeds nothing, so only keys and values are left of it."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.input_layernorm = RMSNorm(geometry.vlm_width)
        self.self_attn = KeyValue(geometry.vlm_width, geometry)

    def forward(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, each (B, kv_heads, P, head_dim)."""
        return self.self_attn.keys_values(self.input_layernorm(x), angles)


class PrefixEncoder(nn.Module):
    """The VLM half: text embedding, and layers that leave their keys and values."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.head_dim = geometry.head_dim
        self.embed_tokens = nn.Embedding(geometry.vocab, geometry.vlm_width)
        whole = [PrefixLayer(geometry) for _ in range(geometry.depth - 1)]
        self.layers = nn.ModuleList([*whole, LastPrefixLayer(geometry)])

    def embed(self, tokens: Tensor) -> Tensor:
        """Embed token ids (B, L) as (B, L, width), scaled by the root of the width."""
        embedded = self.embed_tokens(tokens)
        return embedded * embedded.shape[-1] ** 0.5

    def forward(self, x: Tensor, pad: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a prefix.

        Args:
            x: Embedded images and text (B, P, width).
            pad: (B, P) bool, true where a token is valid.

        Returns:
            Keys and values, each (depth, B, kv_heads, P, head_dim).
        """
        # Padding takes no position: a missing camera does not move the text.
        angles = rope_angles(pad.long().cumsum(1) - 1, self.head_dim)
        keys, values = [], []
        *whole, last = self.layers
        for layer in whole:
            x, k, v = layer(x, angles, pad)
            keys.append(k)
            values.append(v)
        k, v = last(x, angles)
        return torch.stack([*keys, k]), torch.stack([*values, v])
