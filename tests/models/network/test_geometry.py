"""Sizes of a network: presets, and what is refused before anything is built."""

import time
from dataclasses import replace

import pytest

from z1_ros.errors import ConfigError
from z1_ros.models.network.geometry import FULL, LARGEST, PRESETS, SMALL, Geometry, preset


def test_presets_have_names_and_unknown_ones_a_hint() -> None:
    assert PRESETS == {"full": FULL, "small": SMALL} and preset("small") is SMALL
    with pytest.raises(ConfigError, match=r"no geometry 'smal'.*Did you mean 'small'"):
        preset("smal")


def test_token_counts_follow_from_the_sizes() -> None:
    assert FULL.image_tokens == 256 and FULL.prefix_tokens == 3 * 256 + 200
    assert SMALL.image_tokens == 36 and SMALL.prefix_tokens == 3 * 36 + 48


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"depth": 0}, "depth is 0, expected a whole number from 1 to 128"),
        ({"depth": 10**9}, "depth is 1000000000"),
        ({"cameras": 10**8}, "cameras is 100000000, expected a whole number from 1 to 64"),
        ({"vlm_width": 2**62}, "vlm_width is"),
        ({"vlm_width": 10**400}, "vlm_width is a long one"),
        ({"vocab": "512"}, "vocab is '512'"),
        ({"vocab": True}, "vocab is True"),
        ({"heads": 1.0}, "heads is 1.0"),
        ({"patch": 13}, "image_size 224 is not a multiple of patch 13"),
        ({"vision_heads": 5}, "vision_width 1152 is not a multiple of vision_heads 5"),
        ({"kv_heads": 3}, "heads 8 is not a multiple of kv_heads 3"),
        ({"head_dim": 7}, "must be even"),
        ({"image_size": 3584, "cameras": 3}, "3 cameras of 3584 × 3584 px are more than"),
    ],
)
def test_sizes_that_cannot_be_are_refused_at_once(sizes: dict, words: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match=words) as error:
        replace(FULL, **sizes)
    assert time.monotonic() - started < 0.1 and len(str(error.value)) < 200


def test_the_published_sizes_are_far_from_the_bounds() -> None:
    for name, largest in LARGEST.items():
        assert 2 * getattr(Geometry(), name) < largest
