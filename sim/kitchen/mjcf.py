"""Helpers for writing MJCF: bodies, primitive geoms, joints and contact classes.

Contact classes reduce the number of contact pairs: the robot collides with fixtures, surfaces and
objects; objects collide with surfaces and each other; fixtures do not collide with each other.
Geoms without a class are visible but have no contacts.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import numpy as np

_ROBOT, _OBJECT = 1, 4
CONTACT = {
    "robot": {"contype": _ROBOT, "conaffinity": 0},
    "fixture": {"contype": 0, "conaffinity": _ROBOT},
    "surface": {"contype": 0, "conaffinity": _ROBOT | _OBJECT},
    "object": {"contype": _OBJECT, "conaffinity": _ROBOT | _OBJECT},
}
"""MuJoCo contact bits of each class."""

Numbers = float | Sequence[float]
Triple = tuple[float, float, float]
Pair = tuple[float, float]
Contact = str | None  # a key of CONTACT


def text(value: object) -> str:
    """Return the text of an attribute; numbers have 10 digits, so equal scenes have equal XML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return " ".join(f"{v:.10g}" for v in np.atleast_1d(np.asarray(value, float)))


class Body:
    """An MJCF element to which bodies, geoms, joints and sites are added."""

    def __init__(self, element: ET.Element):
        self.element = element

    def add(self, tag: str, **more: object) -> ET.Element:
        """Add a child element; ``None`` attributes are omitted, ``class_`` becomes ``class``."""
        given = {k.rstrip("_"): text(v) for k, v in more.items() if v is not None}
        return ET.SubElement(self.element, tag, given)

    def body(self, name: str, pos: Numbers = (0, 0, 0), **more: object) -> "Body":
        """Add a child body at ``pos`` [m] in this body's frame."""
        return Body(self.add("body", name=name, pos=pos, **more))

    def frame(self, pos: Numbers) -> "Body":
        """Add a frame at ``pos`` [m]; elements that are added to it are relative to it."""
        return Body(self.add("frame", pos=pos))

    def geom(self, kind: str, material: str, contact: Contact = None, **more: object) -> None:
        """Add a geom; without a contact class it is only visible."""
        if contact is not None:
            more = {**CONTACT[contact], **more}
        self.add("geom", type=kind, material=material, **more)

    def box(
        self, pos: Numbers, half: Numbers, material: str, contact: Contact = None, **more: object
    ) -> None:
        """Add a box with half-sizes ``half`` [m]."""
        self.geom("box", material, contact, pos=pos, size=half, **more)

    def block(self, x: Pair, y: Pair, z: Pair, material: str, contact: Contact = None) -> None:
        """Add a box, given its lower and upper limit along each axis [m]."""
        low, high = np.transpose([x, y, z])
        self.box((low + high) / 2, (high - low) / 2, material, contact)

    def panel(self, pos: Numbers, half: Triple, material: str, contact: Contact = None) -> None:
        """Add a box with its texture on the front, which is the side that faces -x."""
        x, y, z = half
        self.box(pos, (y, z, x), material, contact, quat=(0.5, 0.5, -0.5, -0.5))

    def rod(
        self, start: Numbers, end: Numbers, radius: float, material: str, contact: Contact = None,
        *, kind: str = "cylinder", **more: object,
    ) -> None:  # fmt: skip
        """Add a cylinder (or capsule) from ``start`` to ``end`` [m]."""
        ends = (*np.atleast_1d(start), *np.atleast_1d(end))
        self.geom(kind, material, contact, fromto=ends, size=radius, **more)

    def ball(self, pos: Numbers, radius: Numbers, material: str, **more: object) -> None:
        """Add a sphere, or an ellipsoid if three radii are given [m]."""
        kind = "sphere" if np.ndim(radius) == 0 else "ellipsoid"
        self.geom(kind, material, None, pos=pos, size=radius, **more)

    def joint(self, name: str, kind: str, axis: Numbers, **more: object) -> None:
        """Add a joint; a ``range`` [m or rad] makes it limited."""
        self.add("joint", name=name, type=kind, axis=axis, **more)

    def site(self, name: str, pos: Numbers, half: Numbers = (0.005,) * 3) -> None:
        """Add an invisible box-shaped site, which tasks find by its name."""
        self.add("site", name=name, pos=pos, size=half, type="box", group=4)
