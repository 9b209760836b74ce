"""Colours and procedural textures, sampled for each scene.

Textures are computed with NumPy and written into the compiled model, so no image files are needed.
All scenes have the same textures, by name and size.
"""

from dataclasses import dataclass

import numpy as np

from z1_ros.sim.kitchen.mjcf import Body

TEXTURE_SIZE = 128
"""Height and width of every texture [px]."""

Colour = tuple[float, float, float]

CABINETS: dict[str, Colour] = {
    "sage": (0.56, 0.65, 0.54),
    "navy": (0.22, 0.30, 0.42),
    "cream": (0.90, 0.86, 0.76),
    "white": (0.93, 0.92, 0.90),
    "oak": (0.74, 0.54, 0.34),
    "walnut": (0.46, 0.30, 0.20),
    "dusty blue": (0.53, 0.64, 0.72),
    "terracotta": (0.72, 0.45, 0.34),
}
COUNTERS: tuple[Colour, ...] = (
    (0.90, 0.88, 0.85),
    (0.80, 0.79, 0.78),
    (0.36, 0.36, 0.37),
    (0.76, 0.58, 0.40),
    (0.83, 0.77, 0.68),
)
TILES: tuple[Colour, ...] = (
    (0.94, 0.93, 0.90),
    (0.70, 0.80, 0.80),
    (0.86, 0.76, 0.58),
    (0.80, 0.66, 0.58),
    (0.66, 0.74, 0.66),
)
FLOORS: tuple[Colour, ...] = ((0.66, 0.50, 0.35), (0.52, 0.38, 0.27), (0.75, 0.71, 0.65))
WALLS: tuple[Colour, ...] = ((0.95, 0.92, 0.85), (0.90, 0.90, 0.88), (0.93, 0.86, 0.78))
METALS: tuple[Colour, ...] = ((0.80, 0.81, 0.83), (0.83, 0.68, 0.40), (0.13, 0.13, 0.14))
LEVERS: tuple[Colour, ...] = ((0.85, 0.18, 0.14), (0.95, 0.55, 0.10), (0.12, 0.36, 0.80))

_PLAIN: dict[str, tuple[tuple[float, float, float, float], float]] = {
    # name: rgba, specular
    "robot_white": ((0.93, 0.93, 0.94, 1), 0.4),
    "robot_dark": ((0.20, 0.21, 0.23, 1), 0.3),
    "robot_joint": ((0.45, 0.47, 0.50, 1), 0.4),
    "robot_accent": ((0.16, 0.52, 0.70, 1), 0.3),
    "finger": ((0.12, 0.12, 0.13, 1), 0.1),
    "steel": ((0.76, 0.78, 0.80, 1), 0.6),
    "basin": ((0.62, 0.64, 0.67, 1), 0.4),
    "basin_dark": ((0.50, 0.52, 0.55, 1), 0.3),
    "black": ((0.09, 0.09, 0.10, 1), 0.4),
    "charcoal": ((0.24, 0.25, 0.27, 1), 0.3),
    "glass": ((0.16, 0.20, 0.24, 1), 0.8),
    "water": ((0.55, 0.78, 0.95, 0.6), 0.6),
    "sky": ((0.70, 0.86, 0.97, 1), 0.0),
    "hill": ((0.55, 0.72, 0.45, 1), 0.0),
    "leaf": ((0.25, 0.50, 0.24, 1), 0.1),
    "clay": ((0.78, 0.45, 0.30, 1), 0.1),
    "ceramic": ((0.95, 0.94, 0.90, 1), 0.5),
    "linen": ((0.90, 0.84, 0.70, 1), 0.0),
    "green": ((0.10, 0.75, 0.28, 1), 0.3),
    "red": ((0.88, 0.13, 0.12, 1), 0.3),
    "screen": ((0.05, 0.10, 0.10, 1), 0.5),
    "toe_kick": ((0.16, 0.15, 0.15, 1), 0.0),
    "inside": ((0.80, 0.70, 0.55, 1), 0.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Colours and textures of one scene."""

    colours: dict[str, Colour]
    """Colours by material name, for materials that vary and have no texture."""
    textures: dict[str, np.ndarray]
    """Textures (TEXTURE_SIZE, TEXTURE_SIZE, 3) uint8, by name."""


def sample_look(rng: np.random.Generator, scale: float) -> Look:
    """Draw random colours and textures; ``scale`` 0 uses the first entry of every list."""

    def pick(options: tuple[Colour, ...]) -> np.ndarray:
        chosen = options[rng.integers(len(options))] if scale > 0 else options[0]
        return np.clip(np.asarray(chosen) + scale * rng.normal(0, 0.02, 3), 0.02, 0.97)

    names = list(CABINETS)
    name = names[rng.integers(len(names))] if scale > 0 else names[0]
    cabinet = np.clip(np.asarray(CABINETS[name]) + scale * rng.normal(0, 0.02, 3), 0.05, 0.96)
    # Handles must be visible in front of the cabinets.
    metals = [m for m in METALS if np.abs(np.mean(m) - cabinet.mean()) > 0.2]
    colours = {
        "cabinet_trim": tuple(cabinet * 0.86),
        "handle": tuple(pick(tuple(metals))),
        "lever": tuple(pick(LEVERS)),
        "accent": tuple(pick(LEVERS)),
    }
    grain = 0.10 if name in ("oak", "walnut") else 0.02
    textures = {
        "cabinet": _wood(rng, cabinet, grain),
        "counter": _stone(rng, pick(COUNTERS)),
        "tile": _tiles(rng, pick(TILES)),
        "floor": _planks(rng, pick(FLOORS)),
        "wall": _plaster(rng, pick(WALLS)),
        "wood": _wood(rng, np.asarray((0.62, 0.43, 0.27)), 0.12),
    }
    return Look(colours=colours, textures=textures)


_REPEAT = {"cabinet": 1.5, "counter": 1.6, "tile": 2.2, "floor": 0.9, "wall": 1.0, "wood": 2.5}
_SPECULAR = {"counter": 0.35, "tile": 0.5}


def add_materials(asset: Body, look: Look) -> None:
    """Add every material and texture slot to the ``asset`` element."""
    size = TEXTURE_SIZE
    asset.add("texture", type="skybox", builtin="gradient", rgb1=(0.93, 0.95, 0.97),
              rgb2=(0.75, 0.80, 0.86), width=32, height=32)  # fmt: skip
    for name in look.textures:
        asset.add("texture", name=name, type="2d", builtin="flat", width=size, height=size)
        asset.add("material", name=name, texture=name, texrepeat=(_REPEAT[name],) * 2,
                  texuniform=True, specular=_SPECULAR.get(name, 0.1), shininess=0.4)  # fmt: skip
    for name, rgb in look.colours.items():
        asset.add("material", name=name, rgba=(*rgb, 1), specular=0.4, shininess=0.5)
    for name, (rgba, specular) in _PLAIN.items():
        asset.add("material", name=name, rgba=rgba, specular=specular, shininess=0.5)


def _smooth(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return smooth periodic noise (size, size), about -1 … 1, from a grid of rows x columns."""
    size = TEXTURE_SIZE
    grid = rng.normal(0, 1, (rows, columns))
    y, x = np.arange(size) * rows / size, np.arange(size) * columns / size
    y0, x0 = y.astype(int), x.astype(int)
    fy, fx = (y - y0)[:, None], (x - x0)[None]
    fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
    y1, x1 = (y0 + 1) % rows, (x0 + 1) % columns
    top = grid[np.ix_(y0, x0)] * (1 - fx) + grid[np.ix_(y0, x1)] * fx
    low = grid[np.ix_(y1, x0)] * (1 - fx) + grid[np.ix_(y1, x1)] * fx
    return top * (1 - fy) + low * fy


def _paint(colour: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """Return colour x (1 + shade) as (size, size, 3) uint8."""
    image = colour * (1 + shade[..., None])
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _plaster(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    return _paint(colour, 0.012 * (_smooth(rng, 4, 4) + 0.6 * _smooth(rng, 16, 16)))


def _wood(rng: np.random.Generator, colour: np.ndarray, strength: float) -> np.ndarray:
    """Return a texture with vertical wood grain."""
    bend = 0.6 * _smooth(rng, 2, 3)
    rings = np.sin(2 * np.pi * (np.arange(TEXTURE_SIZE)[None] * 7 / TEXTURE_SIZE + bend))
    shade = 0.6 * rings + 0.5 * _smooth(rng, 4, 64) + 0.3 * _smooth(rng, 2, 8)
    return _paint(colour, strength * shade)


def _stone(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    speckle = rng.normal(0, 1, (TEXTURE_SIZE, TEXTURE_SIZE))
    vein = -np.exp(-np.abs(_smooth(rng, 4, 4) + 0.5 * _smooth(rng, 8, 8)) * 14)
    return _paint(colour, 0.035 * speckle + 0.04 * _smooth(rng, 12, 12) + 0.10 * vein)


def _tiles(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    size, columns, rows = TEXTURE_SIZE, 4, 8
    y, x = np.mgrid[0:size, 0:size]
    row = y * rows // size
    x = (x + (row % 2) * size // (2 * columns)) % size  # every second row is shifted
    column = x * columns // size
    tone = rng.normal(0, 0.03, (rows, columns))[row, column]
    height, width = size // rows, size // columns
    joint = (y % height < 1) | (x % width < 1)
    return _paint(colour, np.where(joint, -0.16, tone))


def _planks(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    size, planks = TEXTURE_SIZE, 4
    y, x = np.mgrid[0:size, 0:size]
    plank = y * planks // size
    tone = rng.normal(0, 0.07, planks)[plank]
    ends = rng.integers(0, size, planks)[plank]
    gap = (y % (size // planks) < 2) | (np.abs(x - ends) < 1)
    grain = 0.06 * _smooth(rng, 64, 4)
    return _paint(colour, np.where(gap, -0.35, tone + grain))
