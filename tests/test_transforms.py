"""Images, state and actions on their way into and out of a network."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z1_ros.errors import ConfigError, ObservationError
from z1_ros.models.manifest import ImageSpec, NormStats
from z1_ros.policy.transforms import (
    normalize,
    resize_with_pad,
    scale_image,
    state_bins,
    stats_of,
    unnormalize,
)

GOLDEN = json.loads(
    (Path(__file__).parent / "data" / "processor" / "processor_golden.json").read_text("utf-8")
)


def golden_stats(feature: str) -> NormStats:
    stats = GOLDEN["stats"][feature]
    return NormStats(**{name: tuple(stats[name]) for name in ("mean", "std", "q01", "q99")})


def test_state_is_normalised_as_the_published_processor_does_constant_dimension_included():
    value = normalize(np.array(GOLDEN["raw_state"]), golden_stats("observation.state"), "quantile")
    np.testing.assert_allclose(value, GOLDEN["normalized_state"], rtol=0, atol=2e-6)
    bins = [int(b) for b in GOLDEN["prompt"].split("State: ")[1].split(";")[0].split()]
    assert state_bins(value).tolist() == bins


def test_actions_are_unnormalised_as_the_published_processor_does():
    value = unnormalize(np.array(GOLDEN["action_normalized"]), golden_stats("action"), "quantile")
    np.testing.assert_allclose(value, GOLDEN["action_unnormalized"], rtol=1e-6, atol=1e-6)


def test_bins_have_the_published_edges():
    values = np.array([-1.01, -1.0, -0.9999, 0.0, 0.9999, 1.0, 5.0])
    assert state_bins(values).tolist() == [-1, 0, 0, 128, 255, 255, 255]


@pytest.mark.parametrize("mode", ["quantile", "mean_std"])
def test_unnormalize_inverts_normalize_where_a_dimension_moves(mode):
    random = np.random.default_rng(0)
    values = random.normal(size=(500, 3)).astype(np.float32) * [1, 100, 0] + [0, 5, 7]
    stats = stats_of(values)
    back = unnormalize(normalize(values, stats, mode), stats, mode)
    np.testing.assert_allclose(back, values, rtol=1e-5, atol=1e-4)
    assert normalize(values, stats, mode)[:, 2].std() == 0


def test_quantiles_map_to_the_ends_of_the_range():
    stats = NormStats(mean=(0,), std=(1,), q01=(2,), q99=(6,))
    value = normalize(np.array([[2.0], [4.0], [6.0]]), stats, "quantile")
    assert value.ravel().tolist() == [-1, 0, 1]
    assert value.dtype == np.float32


def test_an_unknown_normalisation_is_named():
    with pytest.raises(ConfigError, match=r"no normalisation 'quantiles'.*Did you mean 'quantile'"):
        normalize(np.zeros(1), stats_of(np.zeros((2, 1))), "quantiles")


def test_padding_keeps_the_aspect_and_is_black():
    image = np.full((48, 96, 3), 200, np.uint8)
    padded = resize_with_pad(image, ImageSpec(size=48), "front")
    assert padded.shape == (48, 48, 3)
    assert (padded[:12] == 0).all() and (padded[36:] == 0).all()
    assert (padded[12:36] == 200).all()


def test_an_odd_row_of_padding_goes_below():
    padded = resize_with_pad(np.full((3, 4, 3), 9, np.uint8), ImageSpec(size=4), "front")
    assert padded[:, 0, 0].tolist() == [9, 9, 9, 0]


def test_area_averages_and_bilinear_does_not():
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(checker[..., None], 3, -1).astype(np.uint8)
    area = resize_with_pad(image, ImageSpec(size=32, resize="area"), "front")
    assert np.ptp(area) <= 1 and abs(int(area.mean()) - 127) <= 1
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[:, ::4] = 255
    bilinear = resize_with_pad(stripes, ImageSpec(size=10, resize="bilinear"), "front")
    assert np.ptp(bilinear) == 0  # between two samples, every fourth column is never seen
    expected = cv2.resize(stripes, (10, 10), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(bilinear, expected)


def test_scaling_gives_channels_first_in_minus_one_to_one():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = (255, 0, 51)
    scaled = scale_image(image)
    assert scaled.shape == (3, 2, 2) and scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[:, 0, 1], [1, -1, -0.6], atol=1e-6)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 40))
def test_any_image_size_fits_the_square(height, width, size):
    image = np.full((height, width, 3), 77, np.uint8)
    padded = resize_with_pad(image, ImageSpec(size=size), "front")
    assert padded.shape == (size, size, 3)
    assert set(np.unique(padded)) <= {0, 77}


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["float", "grey", "rgba", "empty"],
)
def test_a_malformed_image_is_refused_with_its_camera(image):
    with pytest.raises(ObservationError, match="camera 'front' gave"):
        resize_with_pad(image, ImageSpec(size=8), "front")
