"""The parts of Gemma that VLM and action expert share."""

import torch
from support.micro import MICRO

from z1_ros.models.network.gemma import (
    PrefixEncoder,
    attend,
    rms_normalize,
    rope_angles,
    rotate,
    split_heads,
)


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_norm_is_computed_in_float32() -> None:
    normed = rms_normalize(random(2, 3, 8).bfloat16() * 100)
    assert normed.dtype == torch.float32
    torch.testing.assert_close(normed.square().mean(-1), torch.ones(2, 3), rtol=1e-4, atol=1e-4)


def test_rotation_keeps_lengths_and_products_depend_on_distance_alone() -> None:
    x = random(1, 2, 4, 8)
    turned = rotate(x, rope_angles(torch.arange(4)[None], 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    one, other = random(8), random(2, 8)[1]
    heads = torch.stack([one, other])[None, None]

    def product(first: int, second: int):
        a, b = rotate(heads, rope_angles(torch.tensor([[first, second]]), 8))[0, 0]
        return a @ b

    torch.testing.assert_close(product(3, 5), product(10, 12), rtol=1e-4, atol=1e-5)


def test_masked_keys_change_nothing_and_groups_share_keys() -> None:
    q, k, v = random(2, 4, 3, 8), random(2, 2, 5, 8), random(2, 2, 5, 8)
    mask = torch.tensor([[True, True, True, False, False]]).expand(2, -1)
    cut = attend(q, k[:, :, :3], v[:, :, :3], mask[:, :3])
    torch.testing.assert_close(attend(q, k, v, mask), cut)
    alone = attend(q[:, :2], k[:, :1], v[:, :1], mask)
    torch.testing.assert_close(attend(q, k, v, mask)[..., :16], alone)


def test_heads_are_split_from_the_last_dimension() -> None:
    x = random(2, 5, 12)
    assert torch.equal(split_heads(x, 4)[:, 1], x[..., 4:8])


def test_a_prefix_leaves_keys_and_values_of_every_layer() -> None:
    encoder = PrefixEncoder(MICRO)
    valid = torch.ones(2, 6, dtype=torch.bool)
    k, v = encoder(encoder.embed(torch.zeros(2, 6, dtype=torch.long)), valid)
    assert k.shape == v.shape == (MICRO.depth, 2, MICRO.kv_heads, 6, MICRO.head_dim)
