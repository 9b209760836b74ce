"""Inputs and outputs of graphs: one table, and the check against it."""

import pytest
from support.tiny_bundle import TINY

from z1_ros.errors import BundleError
from z1_ros.models.bundle.export import example_draws, example_inputs
from z1_ros.models.bundle.graphs import GRAPHS, INPUTS, OUTPUTS, check_ports, kind_of
from z1_ros.models.network.pi05 import Pi05


def ports(table, graph):
    return {name: (port.dtype, port.sizes(TINY)) for name, port in table[graph].items()}


def test_the_table_is_what_the_network_takes_and_gives() -> None:
    network = Pi05(TINY).eval()
    inputs = example_inputs(TINY, 2, 0)
    prefix = dict(zip(OUTPUTS["prefix"], network.prefix(**inputs), strict=True))
    denoise = example_draws(TINY, 2, 0) | prefix
    for tensors, known in (
        (inputs, INPUTS["prefix"]),
        (prefix, OUTPUTS["prefix"]),
        (denoise, INPUTS["denoise"]),
    ):
        assert list(tensors) == list(known)
        for name, port in known.items():
            assert str(tensors[name].dtype) == f"torch.{port.dtype}"
            assert tensors[name].shape[port.batch_axis] == 2
            wanted = tuple(2 if size is None else size for size in port.sizes(TINY))
            assert tuple(tensors[name].shape) == wanted


def test_names_of_existing_bundles_stay() -> None:
    assert list(OUTPUTS["prefix"]) == ["k", "v", "pad"] and list(OUTPUTS["denoise"]) == ["v_t"]
    assert list(INPUTS["denoise"]) == ["x_t", "time", "k", "v", "pad"]
    assert [kind_of(name) for name in (*GRAPHS, "denoise_OpenDrawer")] == [
        "prefix",
        "denoise",
        "denoise",
    ]


def test_a_graph_of_the_geometry_passes_also_where_it_leaves_outputs_open() -> None:
    for graph in GRAPHS:
        inputs, outputs = ports(INPUTS, graph), ports(OUTPUTS, graph)
        check_ports(graph, inputs, outputs, TINY, "g")
        name, (dtype, shape) = next(iter(outputs.items()))
        check_ports(graph, inputs, outputs | {name: (dtype, (None,) * len(shape))}, TINY, "g")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_t": ("float16", (None, 8, 9))}, r"input x_t is float16 \(batch, 8, 9\), .* float32"),
        ({"x_t": ("float32", (None, 8, 7))}, r"is float32 \(batch, 8, 7\), .*\(batch, 8, 9\)"),
        ({"x_t": ("float32", (1, 8, 9))}, r"is float32 \(1, 8, 9\)"),
        ({"x_t": ("float32", (None, None, 9))}, r"is float32 \(batch, batch, 9\)"),
        ({"time": ("float32", (None, 1))}, "input time is"),
        ({"more": ("float32", ())}, "has the inputs x_t, time, k, v, pad, more"),
    ],
)
def test_another_name_type_or_size_is_refused(change, words) -> None:
    inputs = ports(INPUTS, "denoise") | change
    with pytest.raises(BundleError, match=words):
        check_ports("denoise", inputs, ports(OUTPUTS, "denoise"), TINY, "denoise.onnx")


def test_outputs_are_compared_as_well() -> None:
    inputs = ports(INPUTS, "prefix")
    with pytest.raises(BundleError, match="has the outputs none; a graph prefix has k, v, pad"):
        check_ports("prefix", inputs, {}, TINY, "prefix.onnx")
    outputs = ports(OUTPUTS, "prefix") | {"pad": ("bool", (None, 3))}
    with pytest.raises(BundleError, match="output pad is"):
        check_ports("prefix", inputs, outputs, TINY, "prefix.onnx")
