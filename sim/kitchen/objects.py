"""Objects to pick up: each has one collision box and a more detailed visible shape.

Boxes do not roll on surfaces or between finger pads, and their contacts need the least time. Every
kind of object fits between the fingers from above, for any rotation about the vertical axis.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from z1_ros.sim.kitchen.materials import Colour
from z1_ros.sim.kitchen.mjcf import Body, Triple

Paint = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of object."""

    name: str
    """Name in the instruction."""
    half: Triple
    """Half-sizes of the collision box [m]; the object rests on the bottom of the box."""
    mass: float
    """Mass [kg]."""
    colours: tuple[Colour, ...]
    """Possible main colours."""
    build: Callable[[Body, Triple, Paint], None]
    """Function that adds the visible shape to the body, given half-sizes and RGBA."""


def _apple(body: Body, half: Triple, paint: Paint) -> None:
    body.ball((0, 0, 0), (0.036, 0.036, 0.033), "ceramic", rgba=paint)
    body.rod((0, 0, 0.028), (0.004, 0, 0.045), 0.003, "wood")
    body.ball((0.012, 0, 0.042), (0.011, 0.006, 0.002), "leaf")


def _citrus(body: Body, half: Triple, paint: Paint) -> None:
    body.ball((0, 0, 0), (0.035, 0.035, 0.034), "ceramic", rgba=paint)
    body.rod((0, 0, 0.032), (0, 0, 0.0365), 0.005, "leaf")


def _can(body: Body, half: Triple, paint: Paint) -> None:
    z = half[2]
    body.rod((0, 0, 0.004 - z), (0, 0, z - 0.004), 0.031, "ceramic", rgba=paint)
    body.rod((0, 0, -z), (0, 0, z), 0.028, "steel")
    body.rod((0, 0, -0.012), (0, 0, 0.012), 0.0316, "ceramic")


def _mug(body: Body, half: Triple, paint: Paint) -> None:
    z = half[2]
    body.rod((0, 0, -z), (0, 0, z), 0.034, "ceramic", rgba=paint)
    body.rod((0, 0, z - 0.002), (0, 0, z + 0.0006), 0.029, "robot_dark")
    body.box((0.050, 0, 0), (0.004, 0.006, 0.022), "ceramic", rgba=paint)
    body.box((0.040, 0, 0.024), (0.014, 0.006, 0.004), "ceramic", rgba=paint)
    body.box((0.040, 0, -0.024), (0.014, 0.006, 0.004), "ceramic", rgba=paint)


def _carton(body: Body, half: Triple, paint: Paint) -> None:
    x, y, z = half
    body.box((0, 0, -0.012), (x, y, z - 0.012), "ceramic", rgba=paint)
    body.box((0, 0, -0.020), (x + 0.0006, y + 0.0006, 0.014), "ceramic")
    body.box((0, 0, z - 0.016), (x * 0.72, y, 0.009), "ceramic")
    body.box((0, 0, z - 0.004), (x * 0.2, y, 0.004), "ceramic", rgba=paint)


def _cube(body: Body, half: Triple, paint: Paint) -> None:
    x, y, z = half
    body.box((0, 0, 0), half, "ceramic", rgba=paint)
    body.box((0, 0, 0.002), (x + 0.0006, y + 0.0006, z * 0.3), "linen")


def _pepper(body: Body, half: Triple, paint: Paint) -> None:
    for x, y in ((0.012, 0.012), (-0.012, 0.012), (0, -0.014)):
        body.ball((x, y, 0), (0.023, 0.023, 0.037), "ceramic", rgba=paint)
    body.rod((0, 0, 0.03), (0.003, 0.002, 0.055), 0.005, "leaf")


KINDS = (
    Kind(name="apple", half=(0.029, 0.029, 0.033), mass=0.12, build=_apple,
         colours=((0.80, 0.10, 0.10), (0.55, 0.75, 0.15))),
    Kind(name="orange", half=(0.029, 0.029, 0.034), mass=0.12, build=_citrus,
         colours=((0.95, 0.52, 0.05),)),
    Kind(name="lime", half=(0.028, 0.028, 0.034), mass=0.10, build=_citrus,
         colours=((0.35, 0.70, 0.10),)),
    Kind(name="can", half=(0.027, 0.027, 0.050), mass=0.15, build=_can,
         colours=((0.80, 0.12, 0.14), (0.10, 0.35, 0.70), (0.15, 0.55, 0.30))),
    Kind(name="mug", half=(0.029, 0.029, 0.040), mass=0.15, build=_mug,
         colours=((0.15, 0.45, 0.65), (0.85, 0.35, 0.25), (0.95, 0.80, 0.35))),
    Kind(name="milk", half=(0.027, 0.027, 0.055), mass=0.15, build=_carton,
         colours=((0.20, 0.45, 0.80), (0.80, 0.25, 0.35))),
    Kind(name="cereal", half=(0.022, 0.030, 0.055), mass=0.12, build=_cube,
         colours=((0.93, 0.65, 0.10), (0.60, 0.20, 0.55))),
    Kind(name="bell pepper", half=(0.027, 0.027, 0.036), mass=0.10, build=_pepper,
         colours=((0.85, 0.12, 0.08), (0.95, 0.75, 0.05), (0.20, 0.55, 0.15))),
)  # fmt: skip
"""All kinds of objects."""


def add_object(
    world: Body, name: str, kind: Kind, pos: np.ndarray, yaw: float, colour: Colour
) -> None:
    """Add a free object; ``pos`` is the point under its centre [m], ``yaw`` its rotation [rad]."""
    stand = np.add(pos, (0, 0, kind.half[2]))
    quat = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
    body = world.body(name, stand, quat=quat)
    body.add("freejoint", name=name)
    body.box((0, 0, 0), kind.half, "ceramic", "object", mass=kind.mass, group=3, rgba=(0, 0, 0, 0),
             friction=(1, 0.02, 0.001), condim=4, solref=(0.012, 1))  # fmt: skip
    kind.build(body, kind.half, (*colour, 1))
