"""Transforms between robot and network: images, state and actions.

All transforms are deterministic, so a recorded observation always gives exactly the same inputs.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np

from z1_ros.errors import BackendUnavailable, ConfigError, ObservationError, closest
from z1_ros.models.bundle.manifest import Manifest
from z1_ros.models.bundle.parts import (
    MIN_RANGE,
    NORMALIZATION_FORMS,
    STATS_PARTS,
    ImageSpec,
    Normalization,
    NormStats,
)
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.specs import Field, flatten_state
from z1_ros.types import Observation

# Number added to the range or standard deviation, in the normalisation and in its inverse.
_EPSILON = {
    ("lerobot", "quantile"): (0, 0),
    ("lerobot", "mean_std"): (1e-8, 0),
    ("openpi", "quantile"): (1e-6, 1e-6),
    ("openpi", "mean_std"): (1e-6, 1e-6),
}

MIN_CENTRE = 0.5
"""Shortest centre of a quaternion's statistics that tells which sign the data has."""


def resize_with_pad(image: np.ndarray, spec: ImageSpec, camera: str) -> np.ndarray:
    """Resize an image (height, width, 3) uint8 RGB to the model's square with black padding.

    The aspect ratio is kept; sizes and padding equal openpi ``image_tools.py`` and LeRobot
    ``resize_with_pad_torch``. The result is (size, size, 3) uint8; or float32 from 0 to 255 after
    resizing with ``bilinear``, which does not round.

    Raises:
        ObservationError: Wrong dtype or shape.
        BackendUnavailable: The method needs Pillow, which is not installed.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ObservationError(
            f"camera {camera!r} gave {image.dtype} {image.shape}, expected uint8 (height, width, 3)"
        )
    height, width = image.shape[:2]
    ratio = max(width, height) / spec.size
    inner_h, inner_w = max(1, int(height / ratio)), max(1, int(width / ratio))
    if (inner_h, inner_w) != (height, width):
        image = _RESIZE[spec.resize](image, inner_h, inner_w)
    if inner_h == inner_w == spec.size:
        return np.ascontiguousarray(image)
    padded = np.zeros((spec.size, spec.size, 3), image.dtype)
    top, left = (spec.size - inner_h) // 2, (spec.size - inner_w) // 2
    padded[top : top + inner_h, left : left + inner_w] = image
    return padded


def _resize_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _resize_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    pillow = _pillow()
    return np.asarray(pillow.fromarray(image).resize((width, height), pillow.Resampling.BILINEAR))


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise BackendUnavailable("bilinear_antialias needs Pillow: pip install pillow") from error
    return Image


def _resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize as ``torch.nn.functional.interpolate`` does; OpenCV's weights are less precise."""
    above, below, down = _neighbours(image.shape[0], height)
    left, right, across = _neighbours(image.shape[1], width)
    down, across = down[:, None, None], across[:, None]
    rows = image[above] * (1 - down) + image[below] * down
    return np.clip(rows[:, left] * (1 - across) + rows[:, right] * across, 0, 255)


def _neighbours(size: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two source pixels of each of ``wanted`` pixels and the weight of the second."""
    scale = float(np.float32(size) / np.float32(wanted))
    # float32 as in torch: in a wide image, its rounding changes the weights.
    position = np.maximum(scale * (np.arange(wanted) + 0.5) - 0.5, 0).astype(np.float32)
    first = position.astype(np.intp)
    return first, np.minimum(first + 1, size - 1), position - first.astype(np.float32)


_RESIZE = {
    "area": _resize_area,
    "bilinear": _resize_bilinear,
    "bilinear_antialias": _resize_pillow,
}


def scale_image(image: np.ndarray) -> np.ndarray:
    """Convert (..., size, size, 3) from 0 to 255 to (..., 3, size, size) float32 in [-1, 1]."""
    scaled = image.astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def normalize(values: np.ndarray, stats: NormStats, mode: str, form: str = "lerobot") -> np.ndarray:
    """Map values to the model's range; constant dimensions become -1 (quantile) or 0 (mean_std).

    ``values`` are (..., D) in the robot's units, ``mode`` is ``quantile`` or ``mean_std``, ``form``
    is ``lerobot`` or ``openpi``. The result is float32, or float64 for ``openpi``.

    Raises:
        ConfigError: The mode or form is unknown, or statistics that the mode needs are missing.
    """
    values = np.asarray(values, np.float32)
    affine = _affine(stats, mode, form, values.shape[-1])
    scaled = (values - affine.offset) / affine.divisor
    return np.where(affine.constant, 0, scaled) * (1 - affine.low) + affine.low


def unnormalize(
    values: np.ndarray, stats: NormStats, mode: str, form: str = "lerobot"
) -> np.ndarray:
    """Map network outputs (..., D) to float32 in the robot's units: the inverse of ``normalize``.

    Constant dimensions get their constant value.
    """
    values = np.asarray(values, np.float32)
    affine = _affine(stats, mode, form, values.shape[-1])
    scaled = (values - affine.low) / (1 - affine.low)
    return (scaled * affine.factor + affine.offset).astype(np.float32)


class _Affine(NamedTuple):
    """A normalisation, (x - offset) / divisor, and its inverse, x · factor + offset."""

    offset: np.ndarray  # (D,)
    divisor: np.ndarray  # (D,), 1 where constant
    factor: np.ndarray  # (D,), 0 where constant
    constant: np.ndarray  # (D,) bool
    low: np.float32  # normalised value of the offset


def _affine(stats: NormStats, mode: str, form: str, size: int) -> _Affine:
    """Return the formulas of openpi ``transforms.py`` or LeRobot ``normalize_processor.py``."""
    if mode not in STATS_PARTS:
        raise ConfigError(f"no normalisation {mode!r}. {closest(mode, STATS_PARTS)}")
    if form not in NORMALIZATION_FORMS:
        raise ConfigError(f"no normalisation form {form!r}. {closest(form, NORMALIZATION_FORMS)}")
    # openpi computes with the float64 statistics of its JSON file, LeRobot with float32 tensors.
    dtype = np.dtype("f8" if form == "openpi" else "f4")
    first, second = (np.asarray(getattr(stats, name), dtype) for name in STATS_PARTS[mode])
    if not first.shape == second.shape == (size,):
        needed = " and ".join(STATS_PARTS[mode])
        raise ConfigError(
            f"normalisation {mode!r} of {size} numbers needs as many {needed}, "
            f"got {first.size} and {second.size}"
        )
    spread = second - first if mode == "quantile" else second
    constant = spread <= MIN_RANGE * np.maximum(1, np.abs(first))
    forth, back = _EPSILON[form, mode]
    return _Affine(
        offset=first,
        divisor=np.where(constant, 1, spread + forth),
        factor=np.where(constant, 0, spread + back),
        constant=constant,
        low=np.float32(-1 if mode == "quantile" else 0),
    )


def normalize_state(
    state: np.ndarray, fields: Sequence[Field], normalization: Normalization
) -> np.ndarray:
    """Normalise flat states (..., D) as ``normalize`` does, with one sign for each rotation.

    The quaternions q and -q are one rotation, and drivers disagree about the sign. A model has
    seen one of them: the sign nearest the centre of its statistics.
    """
    stats, mode = normalization.state, normalization.mode
    first, second = (getattr(stats, name) for name in STATS_PARTS[mode])
    centre = first if mode == "mean_std" else np.add(first, second) / 2
    turned = one_hemisphere(state, fields, np.asarray(centre))
    return normalize(turned, stats, mode, normalization.form)


def one_hemisphere(
    state: np.ndarray, fields: Sequence[Field], centre: np.ndarray | None = None
) -> np.ndarray:
    """Return states (..., D) whose quaternions have the sign nearest ``centre`` (D,).

    Without a centre, it is the first of the states (N, D). A centre near zero, of statistics over
    both signs, changes nothing; neither does a vector that is no rotation.
    """
    state = np.array(state, np.float32)
    at = 0
    for field in fields:
        columns = slice(at, at + field.size)
        at += field.size
        if field.unit != "quaternion":
            continue
        middle = state[0, columns] if centre is None else centre[columns]
        if np.linalg.norm(middle) >= MIN_CENTRE:
            turns = state[..., columns]
            rotation = np.abs(np.linalg.norm(turns, axis=-1) - 1) < 0.1
            away = rotation & (turns @ middle < 0)
            state[..., columns] = np.where(away[..., None], -turns, turns)
    return state


def state_bins(normalized: np.ndarray) -> np.ndarray:
    """Return the bin, -1 … 255, of each normalised state number (..., D)."""
    return np.digitize(normalized, np.linspace(-1, 1, 257)[:-1]) - 1


def stats_of(values: np.ndarray) -> NormStats:
    """Return the statistics of values (N, D)."""
    values = np.asarray(values, np.float64)
    low, high = np.quantile(values, (0.01, 0.99), axis=0)
    rows = {"mean": values.mean(0), "std": values.std(0), "q01": low, "q99": high}
    return NormStats(**{k: tuple(row.astype(np.float32).tolist()) for k, row in rows.items()})


class Preprocessor:
    """Converts observations to model inputs as the manifest of a bundle specifies."""

    def __init__(self, manifest: Manifest, tokenizer: PromptTokenizer):
        """Prepare for one bundle; raises BackendUnavailable if its images need missing Pillow."""
        self.manifest = manifest
        self.tokenizer = tokenizer
        if manifest.image.resize == "bilinear_antialias":
            _pillow()

    def __call__(self, observation: Observation) -> dict[str, np.ndarray]:
        """Convert one observation.

        The result has images (slots, 3, size, size) float32, image_mask (slots,) bool, tokens (L,)
        int64 and token_mask (L,) bool.

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
        """Return model images (slots, 3, size, size) and a mask of the slots in use (slots,)."""
        spec, cameras = self.manifest.image, self.manifest.contract.cameras
        slots = np.zeros((spec.slots, spec.size, spec.size, 3), np.float32)
        for slot, camera in enumerate(cameras):
            if camera not in images:
                raise ObservationError(f"no image of camera {camera!r}. {closest(camera, images)}")
            slots[slot] = resize_with_pad(images[camera], spec, camera)
        return scale_image(slots), np.arange(spec.slots) < len(cameras)

    def prompt(self, observation: Observation) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens (L,) of the prompt and the mask of valid tokens (L,)."""
        bins = None
        if self.manifest.prompt.discrete_state:
            state = flatten_state(observation.state, self.manifest.contract.state)
            fields, scaling = self.manifest.contract.state, self.manifest.normalization
            bins = state_bins(normalize_state(state, fields, scaling)).tolist()
        return self.tokenizer.encode(observation.instruction, bins)
