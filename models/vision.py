"""The vision tower: SigLIP's transformer without its pooling head.

Source: openpi ``src/openpi/models/siglip.py`` (variant So400m/14).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from z1_ros.models.geometry import Geometry

LAYER_NORM_EPS = 1e-6


class VisionAttention(nn.Module):
    """Bidirectional multi-head attention over the patches of one image."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, patches, width) to the same shape."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class VisionMLP(nn.Module):
    """Feed-forward block."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        width = geometry.vision_width
        self.layer_norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.self_attn = VisionAttention(width, geometry.vision_heads)
        self.layer_norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = VisionMLP(width, geometry.vision_mlp)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, patches, width) to the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionTower(nn.Module):
    """Images to patch features."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        width, patch = geometry.vision_width, geometry.patch
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self.position_embedding = nn.Embedding(geometry.image_tokens, width)
        self.layers = nn.ModuleList(VisionLayer(geometry) for _ in range(geometry.vision_depth))
        self.post_layernorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, size, size) in [-1, 1] to features (N, patches, width)."""
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)
        x = x + self.position_embedding.weight
        for layer in self.layers:
            x = layer(x)
        return self.post_layernorm(x)
