"""The vision tower: SigLIP of the library transformers, without its pooling head.

Source: openpi ``src/openpi/models/siglip.py`` (variant So400m/14).
"""

import torch
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.recompute import run_layer


def vision_tower(geometry: Geometry) -> SiglipVisionModel:
    """Return a SigLIP network with the sizes of ``geometry``."""
    config = SiglipVisionConfig(
        hidden_size=geometry.vision_width,
        intermediate_size=geometry.vision_mlp,
        num_hidden_layers=geometry.vision_depth,
        num_attention_heads=geometry.vision_heads,
        image_size=geometry.image_size,
        patch_size=geometry.patch,
        vision_use_head=False,
        attn_implementation="sdpa",
    )
    return SiglipVisionModel(config)


def vision_features(tower: SiglipVisionModel, images: Tensor, recompute: bool = False) -> Tensor:
    """Map images (N, 3, size, size) in [-1, 1] to features (N, patches, width)."""
    x = tower.embeddings(images)
    # openpi keeps the embeddings in float32 if the layers are bfloat16.
    x = x.to(tower.post_layernorm.weight.dtype)
    for layer in tower.encoder.layers:
        x = run_layer(layer, x, None, recompute=recompute)
    return tower.post_layernorm(x)


def restore_buffers(tower: SiglipVisionModel) -> None:
    """Restore the buffer that no file contains, in a tower that was built on the meta device."""
    positions = tower.embeddings.position_embedding.num_embeddings
    tower.embeddings.position_ids = torch.arange(positions)[None]
