"""Between robots and networks: images, state and actions, each with its inverse beside it.

Formulas: openpi ``src/openpi/transforms.py`` and LeRobot's normaliser. Everything is
deterministic to the bit, so a recorded observation always gives the same model inputs.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from z1_ros.errors import ConfigError, ObservationError, closest
from z1_ros.models.manifest import ImageSpec, Manifest, NormStats
from z1_ros.models.tokenizer import PromptTokenizer
from z1_ros.specs import flatten_state
from z1_ros.types import Observation

RESIZE = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}
MIN_RANGE = 1e-6
"""Narrower dimensions count as constant."""


def resize_with_pad(image: np.ndarray, spec: ImageSpec, camera: str) -> np.ndarray:
    """Fit an image into the model's square, keeping its aspect, black around it.

    Args:
        image: (height, width, 3) uint8 RGB.
        spec: Size and method.
        camera: Name for error messages.

    Returns:
        (size, size, 3) uint8.

    Raises:
        ObservationError: Wrong dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ObservationError(
            f"camera {camera!r} gave {image.dtype} {image.shape}, expected uint8 (height, width, 3)"
        )
    height, width = image.shape[:2]
    ratio = max(width, height) / spec.size
    inner_h, inner_w = max(1, int(height / ratio)), max(1, int(width / ratio))
    if (inner_h, inner_w) != (height, width):
        image = cv2.resize(image, (inner_w, inner_h), interpolation=RESIZE[spec.resize])
    if inner_h == inner_w == spec.size:
        return np.ascontiguousarray(image)
    padded = np.zeros((spec.size, spec.size, 3), np.uint8)
    top, left = (spec.size - inner_h) // 2, (spec.size - inner_w) // 2
    padded[top : top + inner_h, left : left + inner_w] = image
    return padded


def scale_image(image: np.ndarray) -> np.ndarray:
    """Turn (..., size, size, 3) uint8 into (..., 3, size, size) float32 in [-1, 1]."""
    scaled = image.astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def normalize(values: np.ndarray, stats: NormStats, mode: str) -> np.ndarray:
    """Map values (..., D) to the model's range; constant dimensions become the low end."""
    offset, scale, low = _affine(stats, mode)
    moving = scale > MIN_RANGE
    scaled = (np.asarray(values, np.float32) - offset) / np.where(moving, scale, 1)
    return np.where(moving, scaled, 0) * (np.float32(1) - low) + low


def unnormalize(values: np.ndarray, stats: NormStats, mode: str) -> np.ndarray:
    """Inverse of ``normalize``; constant dimensions become their constant."""
    offset, scale, low = _affine(stats, mode)
    scaled = (np.asarray(values, np.float32) - low) / (np.float32(1) - low)
    return scaled * np.where(scale > MIN_RANGE, scale, 0) + offset


def _affine(stats: NormStats, mode: str) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Return offset (D,), scale (D,) and the value that the offset itself is mapped to."""
    if mode == "quantile":
        low, high = np.asarray(stats.q01, np.float32), np.asarray(stats.q99, np.float32)
        return low, high - low, np.float32(-1)
    if mode == "mean_std":
        return np.asarray(stats.mean, np.float32), np.asarray(stats.std, np.float32), np.float32(0)
    raise ConfigError(f"no normalisation {mode!r}. {closest(mode, ('quantile', 'mean_std'))}")


def state_bins(normalized: np.ndarray) -> np.ndarray:
    """Return the bin, -1 … 255, of each normalised state number (..., D)."""
    return np.digitize(normalized, np.linspace(-1, 1, 257)[:-1]) - 1


def stats_of(values: np.ndarray) -> NormStats:
    """Return the statistics of values (N, D)."""
    values = np.asarray(values, np.float64)
    low, high = np.quantile(values, (0.01, 0.99), axis=0)
    as_tuple = lambda row: tuple(float(np.float32(x)) for x in row)  # noqa: E731
    return NormStats(
        mean=as_tuple(values.mean(0)),
        std=as_tuple(values.std(0)),
        q01=as_tuple(low),
        q99=as_tuple(high),
    )


class Preprocessor:
    """Observations to model inputs, as a bundle's manifest says."""

    def __init__(self, manifest: Manifest, tokenizer: PromptTokenizer):
        self.manifest = manifest
        self.tokenizer = tokenizer

    def __call__(self, observation: Observation) -> dict[str, np.ndarray]:
        """Prepare one observation.

        Returns:
            images (slots, 3, size, size) float32, image_mask (slots,) bool, tokens (L,) int64
            and token_mask (L,) bool.

        Raises:
            ObservationError: A camera or state field is missing or malformed.
        """
        images, image_mask = self.images(observation.images)
        tokens, token_mask = self.prompt(observation)
        return {
            "images": images,
            "image_mask": image_mask,
            "tokens": tokens,
            "token_mask": token_mask,
        }

    def images(self, images: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return model images (slots, 3, size, size) and which slots hold a camera (slots,)."""
        spec, cameras = self.manifest.image, self.manifest.contract.cameras
        slots = np.zeros((spec.slots, spec.size, spec.size, 3), np.uint8)
        for slot, camera in enumerate(cameras):
            if camera not in images:
                raise ObservationError(f"no image of camera {camera!r}. {closest(camera, images)}")
            slots[slot] = resize_with_pad(images[camera], spec, camera)
        return scale_image(slots), np.arange(spec.slots) < len(cameras)

    def prompt(self, observation: Observation) -> tuple[np.ndarray, np.ndarray]:
        """Return the prompt's tokens (L,) and their validity (L,)."""
        bins = None
        if self.manifest.prompt.discrete_state:
            state = flatten_state(observation.state, self.manifest.contract.state)
            normalization = self.manifest.normalization
            bins = state_bins(normalize(state, normalization.state, normalization.mode)).tolist()
        return self.tokenizer.encode(observation.instruction, bins)
