"""Names and shapes of π0.5's weights in the published layouts and in ours."""

import gzip
import json
from collections import Counter

import pytest
from support import DATA as DATA_ROOT
from support.micro import MICRO

from z1_ros.errors import CheckpointError
from z1_ros.models.checkpoint.layouts import (
    EMBEDDING,
    HEAD,
    Layout,
    all_sizes,
    count_sizes,
    find_layout,
    from_openpi,
    is_unused,
    refuse_relatives,
    shape_of,
    sizes_of,
)
from z1_ros.models.network.geometry import FULL
from z1_ros.models.network.pi05 import Pi05

DATA = DATA_ROOT / "pi05_full"
VISION = "paligemma_with_expert.paligemma.model.vision_tower."


def published(name):
    """Key -> shape of the full-size network as its own implementation lists it."""
    table = json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))
    return {key: tuple(shape) for key, (shape, _) in table.items()}


@pytest.fixture(scope="module")
def own():
    """Name -> shape of our full-size network."""
    return {n: tuple(t.shape) for n, t in Pi05.empty(FULL).state_dict().items()}


@pytest.mark.parametrize("name", ["openpi", "lerobot"])
def test_the_published_full_size_tables_are_exactly_what_the_network_expects(name, own):
    table = published(name)
    assert len(table) == 813
    layout = find_layout(table, name)
    assert layout == Layout(name="openpi", depth=18)
    named = {layout.ours(key): shape for key, shape in table.items()}
    assert len(named) == 813 and None not in named
    assert {n: s for n, s in named.items() if not is_unused(n, 18)} == own
    assert all(shape_of(n, FULL) == shape for n, shape in named.items())


def test_nine_of_the_published_tensors_are_unused():
    named = [from_openpi(key, 18) for key in published("openpi")]
    last = "vlm.layers.17."
    assert sorted(name for name in named if is_unused(name, 18)) == [
        "expert.lm_head.weight",
        *(f"{last}mlp.{part}_proj.weight" for part in ("down", "gate", "up")),
        f"{last}post_attention_layernorm.weight",
        *(f"{last}self_attn.{part}_proj.weight" for part in ("o", "q")),
        HEAD,
        "vlm.norm.weight",
    ]


@pytest.mark.parametrize("name", ["openpi", "lerobot", "z1_ros"])
@pytest.mark.parametrize("nested", [True, False])
def test_names_survive_the_way_to_a_layout_and_back(name, nested, own):
    layout = Layout(name=name, depth=18, nested_vision=nested)
    assert [layout.ours(layout.theirs(n)) for n in own] == list(own)


def test_both_spellings_of_the_vision_tower_are_known():
    for spelling in ("", "vision_model."):
        key = f"{VISION}{spelling}post_layernorm.bias"
        assert from_openpi(key, 18) == "vision.post_layernorm.bias"
    table = [key.replace("vision_model.", "") for key in published("openpi")]
    assert find_layout(table, "x") == Layout(name="openpi", depth=18, nested_vision=False)


def test_keys_of_no_layout_have_no_name():
    assert from_openpi("normalize_inputs.buffer_observation_state.mean", 18) is None
    openpi = Layout(name="openpi", depth=18)
    lerobot = Layout(name="lerobot", depth=18)
    assert openpi.ours("model.action_in_proj.bias") is None
    assert lerobot.ours("action_in_proj.bias") is None
    assert lerobot.ours("model.action_in_proj.bias") == "action_in_proj.bias"
    assert shape_of("vlm.layers.3.mlp.middle_proj.weight", FULL) is None


def test_the_layout_follows_from_the_names(own):
    keys = published("openpi")
    assert find_layout([f"model.{key}" for key in keys], "x").name == "lerobot"
    assert find_layout(own, "x") == Layout(name="z1_ros", depth=18, nested_vision=False)


def pi0_keys():
    keys = [k.replace("time_mlp_", "action_time_mlp_") for k in published("openpi")]
    keys = [k.replace("norm.dense.weight", "norm.weight") for k in keys if ".dense.bias" not in k]
    return [*keys, "state_proj.weight", "state_proj.bias"]


def test_pi0_is_refused_by_name_in_every_spelling():
    keys = pi0_keys()
    # LeRobot counts 777 weights of π0, which has the text head once (lerobot issue 3109).
    assert len(keys) - 1 == 777
    for spelled in (keys, [f"model.{key}" for key in keys]):
        with pytest.raises(CheckpointError, match=r"thing is a π0 checkpoint .* only π0\.5"):
            refuse_relatives(spelled, "thing")


def test_a_stray_state_proj_does_not_make_pi05_a_pi0():
    keys = [*published("openpi"), "state_proj.weight"]
    refuse_relatives(keys, "x")
    assert find_layout(keys, "x").ours("state_proj.weight") is None


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["model.language_model.layers.0.mlp.up_proj.weight"], "π0-FAST or PaliGemma"),
        ([k for k in published("openpi") if "paligemma.model" in k], "π0-FAST or PaliGemma"),
        (["base_model.model.x.lora_A.weight"], "merge them"),
        (["in.tokens", "out.loss", "grad.action_in_proj.bias"], "golden data"),
    ],
)
def test_relatives_are_refused_each_by_its_own_sentence(keys, words):
    with pytest.raises(CheckpointError, match=words):
        refuse_relatives(keys, "thing")


def test_of_other_models_some_names_are_told(own):
    for keys in (own, published("openpi"), []):
        refuse_relatives(keys, "thing")
    with pytest.raises(CheckpointError, match=r"holds decoder\.weight, encoder\.weight; expected"):
        find_layout(["encoder.weight", "decoder.weight"], "thing")
    with pytest.raises(CheckpointError, match="holds nothing at all"):
        find_layout([], "thing")


def test_sizes_are_what_most_tensors_say():
    shapes = {from_openpi(key, 18): shape for key, shape in published("openpi").items()}
    shapes["action_in_proj.weight"] = (1024, 31)
    shapes["vlm.layers.3.mlp.up_proj.weight"] = (5, 5)
    shapes[EMBEDDING] = (7, 2048)
    assert count_sizes(shapes) == {**all_sizes(FULL), "vision_depth": 27}


def test_the_published_size_stands_where_no_tensor_tells_and_where_votes_are_even():
    shapes = {from_openpi(key, 18): shape for key, shape in published("openpi").items()}
    kept = {HEAD: (5, 2048), "expert.lm_head.weight": shapes["expert.lm_head.weight"]}
    assert count_sizes(kept)["vocab"] == 257_152
    assert count_sizes({HEAD: (5, 2048)})["vocab"] == 5
    assert count_sizes({})["patch"] == 14 and count_sizes({})["vision_depth"] == 27


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
