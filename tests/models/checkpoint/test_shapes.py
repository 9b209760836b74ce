"""Shapes of weights in terms of sizes, and back."""

from collections import Counter

import pytest
from support.micro import MICRO

from z1_ros.models.checkpoint.shapes import all_sizes, count_sizes, shape_of, sizes_of
from z1_ros.models.network.geometry import FULL
from z1_ros.models.network.pi05 import Pi05


@pytest.mark.parametrize("geometry", [MICRO, FULL], ids=["micro", "full"])
def test_every_weight_of_the_network_has_the_shape_that_is_foretold(geometry) -> None:
    own = Pi05.empty(geometry).state_dict()
    assert {name: shape_of(name, geometry) for name in own} == {
        name: tuple(tensor.shape) for name, tensor in own.items()
    }


def test_shapes_tell_the_sizes() -> None:
    shapes = {name: tuple(t.shape) for name, t in Pi05.empty(MICRO).state_dict().items()}
    counted = count_sizes(shapes)
    assert counted == {**all_sizes(MICRO), "vision_depth": MICRO.vision_depth}


def test_one_tensor_of_a_wrong_shape_is_outvoted() -> None:
    shapes = {name: tuple(t.shape) for name, t in Pi05.empty(MICRO).state_dict().items()}
    shapes["vlm.layers.0.mlp.up_proj.weight"] = (2**62, 0)
    assert count_sizes(shapes)["vlm_mlp"] == MICRO.vlm_mlp
    votes = Counter(size for name in shapes for size in sizes_of(name) or ())
    assert votes["vlm_width"] > 5


def test_names_of_no_weight_have_no_sizes() -> None:
    for name in ("x", "vlm.embed_tokens", "vlm.layers.x.mlp.up_proj.weight", "projector.scale"):
        assert sizes_of(name) is None
    assert sizes_of("projector.bias") == ("vlm_width",)
