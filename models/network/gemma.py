"""Gemma: the prefix encoder, built of transformers' layers, and functions shared with the expert.

Source: openpi ``src/openpi/models/gemma.py``; rotary embedding: Su et al. 2021, half-split form.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GemmaConfig
from transformers.models.gemma.modeling_gemma import GemmaDecoderLayer, GemmaRMSNorm

from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.recompute import run_layer

RMS_EPS = 1e-6
ROPE_BASE = 10_000.0


def rms_normalize(x: Tensor) -> Tensor:
    """Return x (..., width) divided by its root mean square, in float32 for any dtype of x."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + RMS_EPS)


def rope_angles(
    positions: Tensor, head_dim: int, frequency_dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return angles (B, T, head_dim / 2) [rad] of whole positions (B, T), in float32.

    The angles are computed when they are needed and not stored in a buffer: a cast of the network
    to bfloat16 would round a buffer, with an error of up to one radian at position 768. The
    frequencies are rounded to ``frequency_dtype``, see ``Pi05.rope_dtype``.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    frequencies = (1 / ROPE_BASE**exponent).to(frequency_dtype).float()
    return positions.to(torch.float32)[..., None] * frequencies


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate heads x (B, heads, T, head_dim) by angles (B, T, head_dim / 2)."""
    angles = angles[:, None]
    sin, cos = angles.sin(), angles.cos()
    first, second = x.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return rotated.to(x.dtype)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """Reshape (B, T, heads * head_dim) to (B, heads, T, head_dim)."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    """Grouped-query attention in which every query attends to the same keys.

    In π0.5, prefix queries attend to all valid prefix tokens, and suffix queries also to the whole
    suffix. A mask over keys is therefore sufficient, no row is ever fully masked, and the query
    heads of a group can be merged into the query axis.

    Queries are (B, heads, T, head_dim), keys and values (B, kv_heads, S, head_dim), and the mask
    (B, S) is true where a key may be attended to. The result is (B, T, heads * head_dim).
    """
    batch, heads, length, head_dim = q.shape
    kv_heads = k.shape[1]
    folded = q.reshape(batch, kv_heads, heads // kv_heads * length, head_dim)
    attended = F.scaled_dot_product_attention(folded, k, v, attn_mask=key_mask[:, None, None])
    return attended.reshape(batch, heads, length, head_dim).transpose(1, 2).flatten(2)


def gemma_config(geometry: Geometry, width: int, mlp: int) -> GemmaConfig:
    """Return the settings of transformers' Gemma layers with that width and hidden width."""
    return GemmaConfig(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=geometry.depth,
        num_attention_heads=geometry.heads,
        num_key_value_heads=geometry.kv_heads,
        head_dim=geometry.head_dim,
        vocab_size=geometry.vocab,
        hidden_act="gelu_pytorch_tanh",
        rms_norm_eps=RMS_EPS,
        attn_implementation="sdpa",
    )


class LastLayer(nn.Module):
    """The used part of the VLM's last layer: keys and values; its output is not used."""

    def __init__(self, config: GemmaConfig):
        super().__init__()
        size = config.num_key_value_heads * config.head_dim
        self.input_layernorm = GemmaRMSNorm(config.hidden_size, eps=RMS_EPS)
        self.k_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, size, bias=False)


class PrefixEncoder(nn.Module):
    """The VLM: text embedding, and Gemma layers whose keys and values are stored."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        config = gemma_config(geometry, geometry.vlm_width, geometry.vlm_mlp)
        self.head_dim = geometry.head_dim
        self.rope_dtype = torch.float32
        self.recompute = False
        self.embed_tokens = nn.Embedding(geometry.vocab, geometry.vlm_width)
        layers = (GemmaDecoderLayer(config, index) for index in range(geometry.depth - 1))
        self.layers = nn.ModuleList(layers)
        self.last = LastLayer(config)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embed token ids (B, L) as (B, L, width), scaled by the root of the width."""
        embedded = self.embed_tokens(tokens)
        return embedded * embedded.shape[-1] ** 0.5

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Encode embedded images and text x (B, P, width); ``valid`` (B, P) is false on padding.

        Returns:
            Keys and values, each (depth, B, kv_heads, P, head_dim).
        """
        x = x.to(self.last.k_proj.weight.dtype)
        # Padding has no position: a missing camera does not change the positions of the text.
        angles = rope_angles(valid.long().cumsum(1) - 1, self.head_dim, self.rope_dtype)
        turns = torch.cat([angles, angles], dim=-1)
        rope = turns.cos().to(x.dtype), turns.sin().to(x.dtype)
        mask = valid[:, None, None].expand(-1, 1, valid.shape[1], -1)
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def keep(layer: Any, normed: Tensor) -> None:
            keys.append(rotate(split_heads(layer.k_proj(normed), self.head_dim), angles))
            values.append(split_heads(layer.v_proj(normed), self.head_dim))

        layer: Any
        for layer in self.layers:
            # Keys and values are projected again here: a layer with gradient checkpointing does not
            # fill the cache of transformers. One head of eight costs 1 % of the layer.
            keep(layer.self_attn, layer.input_layernorm(x))
            x = run_layer(
                layer, x, attention_mask=mask, position_embeddings=rope, recompute=self.recompute
            )
        keep(self.last, self.last.input_layernorm(x))
        return torch.stack(keys), torch.stack(values)
