"""Looks: every scene has the same slots, filled from its seed alone."""

import xml.etree.ElementTree as ET

import numpy as np

from z1_ros.sim.kitchen.materials import TEXTURE_SIZE, Look, add_materials, sample_look
from z1_ros.sim.kitchen.mjcf import Body


def look(seed: int, scale: float = 1.0) -> Look:
    return sample_look(np.random.default_rng(seed), scale)


def test_every_look_has_the_same_slots_of_the_same_size():
    one, other = look(0), look(1)
    assert one.textures.keys() == other.textures.keys()
    for name, image in one.textures.items():
        assert image.shape == (TEXTURE_SIZE, TEXTURE_SIZE, 3) and image.dtype == np.uint8
        assert not np.array_equal(image, other.textures[name])
        assert np.array_equal(image, look(0).textures[name])
    assert one.colours == look(0).colours and one.colours != other.colours


def test_handles_stand_out_from_their_cabinets():
    for seed in range(20):
        found = look(seed)
        cabinet = found.textures["cabinet"].mean() / 255
        assert abs(np.mean(found.colours["handle"]) - cabinet) > 0.1, seed


def test_materials_name_every_texture_and_colour():
    asset = Body(ET.Element("asset"))
    add_materials(asset, look(0))
    names = [e.attrib["name"] for e in asset.element if e.tag == "material"]
    assert len(set(names)) == len(names)
    assert {*look(0).textures, *look(0).colours} <= set(names)
