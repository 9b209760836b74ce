"""Checkpoints of every layout load exactly, or one error says all that is wrong with them."""

import json
import os
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.micro import (
    DATA,
    EMBEDDING,
    EXPERT,
    HEAD,
    MICRO,
    OPENPI,
    PALIGEMMA,
    UNTOLD,
    as_lerobot,
    directory_with,
    openpi_weights,
    refusal,
    saved,
)

from z1_ros.models.checkpoint.loading import (
    LISTED,
    assign,
    describe,
    infer_geometry,
    load_checkpoint,
    load_network,
    read_facts,
    read_tensors,
    write_tensors,
)
from z1_ros.models.network.geometry import FULL
from z1_ros.models.network.pi05 import Pi05


@pytest.fixture
def openpi():
    return openpi_weights()


def flat_vision(tensors):
    return {key.replace("vision_model.", ""): tensor for key, tensor in tensors.items()}


def unchanged(tensors):
    return tensors


@pytest.mark.parametrize("layout", [unchanged, as_lerobot])
@pytest.mark.parametrize("vision", [unchanged, flat_vision])
def test_every_layout_gives_the_same_network(openpi, layout, vision, tmp_path):
    path = saved(vision(layout(openpi)), tmp_path / "model.safetensors")
    reference = load_checkpoint(OPENPI, MICRO).state_dict()
    assert len(reference) == 84
    for given in (path, tmp_path, str(tmp_path)):
        network = load_checkpoint(given, MICRO)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, reference[name]), name
        assert not any(t.is_meta for t in (*network.parameters(), *network.buffers()))
        assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_trained_embedding_wins_over_the_stale_text_head(openpi, tmp_path):
    weights = {f"model.{key}": t for key, t in openpi.items()}
    both = saved(as_lerobot(openpi), tmp_path / "both.safetensors")
    head = saved(weights, tmp_path / "head.safetensors")
    only = {**weights, f"model.{EMBEDDING}": weights.pop(f"model.{HEAD}")}
    only = saved({k: t for k, t in only.items() if "lm_head" not in k}, tmp_path / "a.safetensors")
    for path in (both, head, only):
        assert torch.equal(load_checkpoint(path, MICRO).vlm.embed_tokens.weight, openpi[HEAD])


def test_weights_that_feed_nothing_may_be_absent(openpi, tmp_path):
    last = PALIGEMMA + "model.language_model.layers.1."
    dead = [EXPERT + "lm_head.weight", PALIGEMMA + "model.language_model.norm.weight"]
    dead += [last + f"self_attn.{part}_proj.weight" for part in "qo"]
    dead += [last + f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
    dead += [last + "post_attention_layernorm.weight"]
    for key in dead:
        del openpi[key]
    path = saved(openpi, tmp_path / "a.safetensors")
    assert len(describe(path).stored) == 84
    load_checkpoint(path, MICRO)


@pytest.mark.parametrize("layout", [unchanged, as_lerobot])
@pytest.mark.parametrize("vision", [unchanged, flat_vision])
def test_all_that_differs_is_in_one_error_by_the_names_of_the_file(
    openpi, layout, vision, tmp_path
):
    tensors = vision(layout(openpi))
    here = {key.replace("vision_model.", "").removeprefix("model."): key for key in tensors}
    missing = here["paligemma_with_expert.paligemma.model.vision_tower.post_layernorm.bias"]
    missing_last = here[PALIGEMMA + "model.language_model.layers.1.self_attn.k_proj.weight"]
    misshaped = here["action_in_proj.weight"]
    unused = here[EXPERT + "lm_head.weight"]
    renamed = here["time_mlp_in.weight"]
    del tensors[missing], tensors[missing_last]
    tensors[renamed + "s"] = tensors.pop(renamed)
    tensors[misshaped] = torch.zeros(32, 31)
    tensors[unused] = torch.zeros(512, 33)
    tensors["normalize.mean"] = torch.zeros(3)
    path = saved(tensors, tmp_path / "model.safetensors")
    checkpoint = describe(path)
    for geometry in (MICRO, infer_geometry(checkpoint, **UNTOLD)):
        text = refusal(load_checkpoint, path, geometry)
        assert f"3 missing: {', '.join(sorted([missing, missing_last, renamed]))};" in text
        assert f"2 unexpected: {', '.join(sorted(['normalize.mean', renamed + 's']))};" in text
        assert f"{misshaped} (32, 31) instead of (32, 32)" in text
        assert f"{unused} (512, 33) instead of (512, 32)" in text
        assert "2 of another shape" in text


def test_without_an_embedding_both_of_its_names_are_missing(openpi, tmp_path):
    del openpi[HEAD]
    text = refusal(load_checkpoint, saved(openpi, tmp_path / "a.safetensors"), MICRO)
    assert f"1 missing: {EMBEDDING} (or {HEAD})" in text


def test_a_tensor_given_in_two_spellings_is_unexpected(openpi, tmp_path):
    key = PALIGEMMA + "model.vision_tower.vision_model.post_layernorm.bias"
    twice = {**openpi, key.replace("vision_model.", ""): openpi[key]}
    text = refusal(load_checkpoint, saved(twice, tmp_path / "a.safetensors"), MICRO)
    assert "1 unexpected:" in text and "post_layernorm.bias" in text


def test_long_lists_end_with_a_number(openpi, tmp_path):
    more = {**openpi, **{f"extra.{i:03}": torch.zeros(1) for i in range(LISTED + 7)}}
    text = refusal(load_checkpoint, saved(more, tmp_path / "a.safetensors"), MICRO)
    assert f"{LISTED + 7} unexpected: extra.000," in text
    assert text.endswith(f"extra.{LISTED - 1:03} and 7 more")


def test_a_layer_less_than_the_geometry_has_is_missing(openpi, tmp_path):
    first = PALIGEMMA + "model.vision_tower.vision_model.encoder.layers.1."
    fewer = {key: t for key, t in openpi.items() if not key.startswith(first)}
    text = refusal(load_checkpoint, saved(fewer, tmp_path / "a.safetensors"), MICRO)
    assert "16 missing" in text and first + "layer_norm1.bias" in text


def test_each_tensor_keeps_its_type(openpi, tmp_path):
    half, full = "time_mlp_in.weight", "time_mlp_in.bias"
    mixed = {k: t if "time_mlp" in k else t.bfloat16() for k, t in openpi.items()}
    mixed["action_in_proj.bias"] = openpi["action_in_proj.bias"].half()
    mixed["action_in_proj.weight"] = openpi["action_in_proj.weight"].double()
    path = saved(mixed, tmp_path / "a.safetensors")
    network = load_checkpoint(path, MICRO)
    types = {name: p.dtype for name, p in network.named_parameters()}
    assert types.pop(f"time.{half}") == types.pop(f"time.{full}") == torch.float32
    # float16 is too narrow for the activations, float64 of no use.
    assert types.pop("action_in_proj.bias") == torch.float32
    assert types.pop("action_in_proj.weight") == torch.float32
    assert types.pop("time.time_mlp_out.weight") == torch.float32
    assert types.pop("time.time_mlp_out.bias") == torch.float32
    assert set(types.values()) == {torch.bfloat16}
    assert describe(path).dtypes == ("BF16", "F16", "F32", "F64")
    everything = load_checkpoint(path, MICRO, torch.float32)
    assert {p.dtype for p in everything.parameters()} == {torch.float32}


def test_weights_that_are_no_floats_are_refused_by_name(openpi, tmp_path):
    openpi["time_mlp_in.bias"] = torch.zeros(32, dtype=torch.int8)
    text = refusal(load_checkpoint, saved(openpi, tmp_path / "a.safetensors"), MICRO)
    assert "time_mlp_in.bias I8 instead of float32 or bfloat16" in text


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_weights_are_the_file_mapped_into_memory_not_copies_of_it(dtype):
    network = load_checkpoint(OPENPI, MICRO, dtype)
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split()[0].split("-") for line in lines if line.endswith(str(OPENPI))]
    spans = [(int(start, 16), int(end, 16)) for start, end in mapped]
    for name, parameter in network.named_parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in spans), name


def test_training_does_not_write_to_the_file(openpi, tmp_path):
    path = saved(openpi, tmp_path / "a.safetensors")
    before = path.read_bytes()
    network = load_checkpoint(path, MICRO)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert path.read_bytes() == before


def test_a_loaded_network_has_the_buffers_of_a_built_one():
    loaded, built = load_checkpoint(OPENPI, MICRO), Pi05(MICRO)
    buffers = dict(built.named_buffers())
    assert len(buffers) > 0
    for name, buffer in loaded.named_buffers():
        assert torch.equal(buffer, buffers.pop(name)), name
    assert not buffers


def test_sizes_come_from_the_shapes_and_the_rest_must_be_stated(tmp_path):
    checkpoint = describe(OPENPI)
    assert infer_geometry(checkpoint, **UNTOLD) == MICRO
    text = refusal(infer_geometry, checkpoint)
    assert "does not tell cameras, horizon, prompt_tokens, vision_heads:" in text
    assert text.endswith("--prompt-tokens and --vision-heads")
    assert infer_geometry(checkpoint, **{**UNTOLD, "depth": 3}).depth == 3


def test_what_a_configuration_says_is_what_the_shapes_are_checked_against(openpi, tmp_path):
    key = PALIGEMMA + "model.vision_tower.vision_model.embeddings.position_embedding.weight"
    path = directory_with(tmp_path, "config.json", (DATA / "lerobot_config.json").read_text())
    for rows in (9, 15):
        saved({**openpi, key: torch.zeros(rows, 48)}, tmp_path / "model.safetensors")
        checkpoint = describe(path)
        geometry = infer_geometry(checkpoint, vision_heads=4)
        text = refusal(load_checkpoint, checkpoint, geometry)
        assert f"{key} ({rows}, 48) instead of (16, 48)" in text


def test_the_published_width_tells_the_vision_heads():
    sizes = {"vision_width": 1152, "vision_heads": 16}
    assert {name: getattr(FULL, name) for name in sizes} == sizes
    checkpoint = describe(OPENPI)
    wide = [s for s in checkpoint.stored if "vision" not in s.key]
    stored = (*wide, *(resized(s) for s in checkpoint.stored if "vision" in s.key))
    widened = type(checkpoint)(checkpoint.path, checkpoint.layout, stored, {})
    untold = {name: value for name, value in UNTOLD.items() if name != "vision_heads"}
    assert infer_geometry(widened, **untold).vision_heads == 16


def test_a_published_width_with_fewer_layers_is_a_file_that_lost_its_last_ones():
    checkpoint = describe(OPENPI)
    sizes = {48: FULL.vision_width, 64: FULL.vlm_width}
    stored = tuple(
        replace(s, shape=tuple(sizes.get(size, size) for size in s.shape))
        for s in checkpoint.stored
    )
    geometry = infer_geometry(replace(checkpoint, stored=stored), **UNTOLD | {"vision_heads": 16})
    assert (geometry.depth, geometry.vision_depth) == (18, 27)


def test_a_dead_or_empty_tensor_does_not_outvote_the_one_that_is_used():
    checkpoint = describe(OPENPI)
    dead = "paligemma_with_expert.gemma_expert.lm_head.weight"
    position = PALIGEMMA + "model.vision_tower.vision_model.embeddings.position_embedding.weight"
    for key, shape in ((dead, (513, 32)), (dead, (0, 32)), (position, (0, 48))):
        stored = (replace(s, shape=shape) if s.key == key else s for s in checkpoint.stored)
        broken = replace(checkpoint, stored=tuple(stored))
        text = refusal(load_checkpoint, broken, infer_geometry(broken, **UNTOLD))
        assert f"1 of another shape or type: {key} {shape} instead of" in text


def resized(stored):
    shape = tuple(1152 if size == 48 else size for size in stored.shape)
    return type(stored)(stored.file, stored.key, shape, stored.dtype)


def test_a_bundle_round_trips_with_its_facts(tmp_path):
    path = tmp_path / "model.safetensors"
    state = load_checkpoint(OPENPI, MICRO).state_dict()
    write_tensors(path, state, {"step": 7})
    assert read_facts(path) == {"step": 7}
    for name, tensor in load_network(path, MICRO).state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_damaged_facts_are_one_sentence(tmp_path, text):
    path = saved({"a": torch.zeros(1)}, tmp_path / "a.safetensors", facts=text)
    assert "holds facts that are no JSON" in refusal(read_facts, path)


def test_tensors_are_bounded_before_a_network_is_built(tmp_path):
    for name, words in (
        (f"{EXPERT}model.layers.999999999.mlp.up_proj.weight", "names layer 999999999 of"),
        (f"{EXPERT}model.layers.{'9' * 5000}.mlp.up_proj.weight", "names a tensor"),
        (f"{EXPERT}model.layers.77.mlp.up_proj.weight", "but only 2 of the layers below it"),
        ("two\nlines", "names a tensor 'two"),
    ):
        path = saved({**openpi_weights(), name: torch.zeros(0, 1)}, tmp_path / "model.safetensors")
        started = time.monotonic()
        assert words in refusal(describe, path)
        assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ([0, 2**62], "F32", "gives a the shape (0, 4611686018427387904), which is too large"),
        ([2**31, 0, 2**31], "F32", "which is too large"),
        ([0], "F8_E4M3", "holds a in F8_E4M3, a type that is not read"),
        ([0], "C64", "holds a in C64"),
    ],
)
def test_shapes_and_types_that_nothing_here_has_are_one_sentence(tmp_path, shape, dtype, words):
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert words in refusal(read_tensors, path)


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "model.safetensors"
    os.mkfifo(path)
    assert "is not a regular file" in refusal(describe, path)


def test_a_bundle_that_does_not_fit_is_refused_by_our_names(tmp_path):
    state = dict(load_checkpoint(OPENPI, MICRO).state_dict())
    state["projector.bias"] = torch.zeros(3)
    del state["vlm.last.k_proj.weight"], state["vlm.embed_tokens.weight"]
    state["vlm.norm.weight"] = torch.zeros(64)
    path = tmp_path / "model.safetensors"
    write_tensors(path, state)
    text = refusal(load_network, path, MICRO)
    assert "2 missing: vlm.embed_tokens.weight, vlm.last.k_proj.weight;" in text
    assert "1 unexpected: vlm.norm.weight;" in text
    assert "projector.bias (3,) instead of (64,)" in text


def test_a_bundle_is_never_in_another_projects_layout():
    assert "layout of openpi; z1-import makes a bundle" in refusal(load_network, OPENPI, MICRO)


def test_assigning_copies_all_or_nothing():
    network, other = Pi05(MICRO).init_weights(0), Pi05(MICRO).init_weights(1)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    given = dict(other.state_dict())
    given["projector.bias"] = torch.zeros(3)
    given["more"] = given.pop("projector.weight")
    text = refusal(assign, network.state_dict(), given, "a run")
    assert text.startswith("a run does not fit the network; tensors 1 missing: projector.weight;")
    assert "1 unexpected: more; 1 of another shape" in text
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assign(network.state_dict(), other.state_dict(), "a run")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


@pytest.mark.parametrize("layout", [unchanged, as_lerobot])
def test_whatever_tensor_is_wrong_is_named_without_help(layout, tmp_path):
    """The geometry is taken from the broken file itself, as the commands take it."""
    path = tmp_path / "a.safetensors"
    weights = layout(openpi_weights())
    used = {stored.key for stored in describe(saved(weights, path)).tensors.values()}
    for key in [*sorted(used)[::3], *(key for key in used if "embed" in key)]:
        for wrong in (None, weights[key][None], weights[key][:-1]):
            given = {k: t for k, t in {**weights, key: wrong}.items() if t is not None}
            if wrong is None and "embed_tokens" in key:
                continue  # LeRobot before 0.5 saved the head alone
            checkpoint = describe(saved(given, path))
            text = refusal(load_checkpoint, checkpoint, infer_geometry(checkpoint, **UNTOLD))
            assert key in text
