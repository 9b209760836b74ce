"""The vision tower."""

import torch
from support.micro import MICRO

from z1_ros.models.network.vision import restore_buffers, vision_features, vision_tower


def test_an_image_becomes_one_feature_a_patch() -> None:
    tower = vision_tower(MICRO).eval()
    images = torch.randn(2, 3, MICRO.image_size, MICRO.image_size)
    with torch.no_grad():
        features = vision_features(tower, images)
        assert features.shape == (2, MICRO.image_tokens, MICRO.vision_width)
        torch.testing.assert_close(features[1:], vision_features(tower, images[1:]))


def test_recomputed_layers_give_the_same_features_and_gradients() -> None:
    tower = vision_tower(MICRO)
    images = torch.randn(1, 3, MICRO.image_size, MICRO.image_size)
    found = []
    for recompute in (False, True):
        tower.zero_grad()
        features = vision_features(tower, images, recompute)
        features.square().mean().backward()
        found.append((features.detach(), tower.encoder.layers[0].mlp.fc1.weight.grad.clone()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_tower_built_on_the_meta_device_gets_its_positions_back() -> None:
    with torch.device("meta"):
        tower = vision_tower(MICRO)
    restore_buffers(tower)
    assert torch.equal(tower.embeddings.position_ids, torch.arange(MICRO.image_tokens)[None])
