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


def test_a_tower_built_on_the_meta_device_gets_its_positions_back() -> None:
    with torch.device("meta"):
        tower = vision_tower(MICRO)
    restore_buffers(tower)
    assert torch.equal(tower.embeddings.position_ids, torch.arange(MICRO.image_tokens)[None])
