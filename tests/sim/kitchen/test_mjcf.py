"""The words for writing MJCF give equal text for equal numbers."""

import xml.etree.ElementTree as ET

import pytest

from z1_ros.sim.kitchen.mjcf import CONTACT, Body, text


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        ("name", "name"),
        (1 / 3, "0.3333333333"),
        ((1, 2.5), "1 2.5"),
        (1e-12 + 1.0, "1"),
    ],
)
def test_numbers_keep_ten_digits(value, written):
    assert text(value) == written


def test_attributes_that_are_none_are_left_out():
    element = Body(ET.Element("body")).add("geom", size=None, class_="visual", type="box")
    assert element.attrib == {"class": "visual", "type": "box"}


def test_a_block_is_the_box_between_its_corners():
    body = Body(ET.Element("body"))
    body.block((0, 2), (-1, 1), (3, 4), "oak", "fixture")
    (geom,) = body.element
    assert geom.attrib["pos"] == "1 0 3.5" and geom.attrib["size"] == "1 1 0.5"
    assert {name: int(geom.attrib[name]) for name in ("contype", "conaffinity")} == CONTACT[
        "fixture"
    ]


def test_only_pairs_that_matter_can_touch():
    def touch(one: str, other: str) -> bool:
        a, b = CONTACT[one], CONTACT[other]
        return bool(a["contype"] & b["conaffinity"] or b["contype"] & a["conaffinity"])

    assert touch("robot", "fixture") and touch("robot", "object") and touch("object", "surface")
    assert touch("object", "object")
    assert not touch("fixture", "surface") and not touch("object", "fixture")
