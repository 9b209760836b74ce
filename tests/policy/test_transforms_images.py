"""Images on their way to the network: every size, both projects' resizing, to the bit."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from z1_ros.errors import ObservationError
from z1_ros.models.bundle.parts import RESIZE_METHODS, ImageSpec
from z1_ros.policy.transforms import resize_with_pad, scale_image

UNTIMED = settings(deadline=None)


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
    assert (bilinear == 0).all()  # between two samples, every fourth column is never seen


SIZES = st.tuples(st.integers(1, 700), st.integers(1, 700), st.sampled_from([16, 97, 224]))


def noise_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def inner_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the size that the published code resizes to (which fails where that is 0)."""
    ratio = max(width / size, height / size)
    assume(int(height / ratio) and int(width / ratio))
    return int(height / ratio), int(width / ratio)


@settings(UNTIMED, max_examples=60)
@given(SIZES)
@example((480, 640, 224))
@example((720, 1280, 224))
@example((256, 256, 224))
@example((100, 1, 224))
@example((1, 224, 224))
def test_bilinear_is_torchs_interpolation_in_a_black_frame(sizes):
    torch = pytest.importorskip("torch")
    height, width, size = sizes
    image = noise_image(height, width)
    inner_h, inner_w = inner_size(height, width, size)
    floating = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    inner = torch.nn.functional.interpolate(
        floating, size=(inner_h, inner_w), mode="bilinear", align_corners=False
    )
    above, left = (size - inner_h) // 2, (size - inner_w) // 2
    frame = (left, size - inner_w - left, above, size - inner_h - above)
    expected = torch.nn.functional.pad(inner.clamp(0, 1), frame)[0] * 2 - 1
    value = scale_image(resize_with_pad(image, ImageSpec(size=size, resize="bilinear"), "front"))
    np.testing.assert_allclose(value, expected.numpy(), rtol=0, atol=1e-5)


@settings(UNTIMED, max_examples=60)
@given(SIZES)
@example((480, 640, 224))
@example((100, 1, 224))
@example((1, 224, 224))
def test_bilinear_antialias_is_pillows_image_in_a_black_frame(sizes):
    height, width, size = sizes
    image = noise_image(height, width)
    inner_h, inner_w = inner_size(height, width, size)
    expected = Image.new("RGB", (size, size))
    inner = Image.fromarray(image).resize((inner_w, inner_h), Image.Resampling.BILINEAR)
    expected.paste(inner, ((size - inner_w) // 2, (size - inner_h) // 2))
    spec = ImageSpec(size=size, resize="bilinear_antialias")
    value = resize_with_pad(image, spec, "front")
    assert value.dtype == np.uint8
    assert np.array_equal(value, np.asarray(expected))


def test_scaling_gives_channels_first_in_minus_one_to_one():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = (255, 0, 51)
    scaled = scale_image(image)
    assert scaled.shape == (3, 2, 2) and scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[:, 0, 1], [1, -1, -0.6], atol=1e-6)


@pytest.mark.parametrize("resize", RESIZE_METHODS)
@UNTIMED
@given(
    height=st.one_of(st.integers(1, 60), st.just(2000)),
    width=st.integers(1, 60),
    size=st.integers(8, 40),
)
def test_any_image_size_fits_the_square(resize, height, width, size):
    image = np.full((height, width, 3), 77, np.uint8)
    padded = resize_with_pad(image, ImageSpec(size=size, resize=resize), "front")
    assert padded.shape == (size, size, 3)
    filled = padded[..., 0] > 0
    np.testing.assert_allclose(padded[filled], 77, atol=1e-4)
    rows, columns = filled.any(1), filled.any(0)
    assert filled.sum() == rows.sum() * columns.sum()
    for lines in (rows, columns):
        before, behind = lines.argmax(), lines[::-1].argmax()
        assert behind - before in (0, 1) and lines.sum() + before + behind == size
    # The published int() of a quotient may lose one pixel of the longer side.
    assert max(rows.sum(), columns.sum()) >= size - 1


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
