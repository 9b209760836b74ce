"""Which files a graph reads its weights from."""

import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from z1_ros.policy.backends import external_data
from z1_ros.policy.backends.external_data import external_files


def external(name: str, location: str) -> TensorProto:
    """Return a tensor whose content lies in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph(*initializers: TensorProto, nodes=()) -> onnx.GraphProto:
    made = helper.make_graph(list(nodes), "g", [], [])
    made.initializer.extend(initializers)
    return made


def inside(tensor: TensorProto, place: str) -> onnx.ModelProto:
    """Return a model that holds a tensor at some place."""
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    if place == "initializer":
        return helper.make_model(graph(tensor))
    if place == "constant":
        return helper.make_model(graph(nodes=[constant]))
    if place == "list":
        return helper.make_model(graph(nodes=[helper.make_node("X", [], ["c"], many=[tensor])]))
    if place == "branch":
        branches = {"then_branch": graph(tensor), "else_branch": graph()}
        return helper.make_model(graph(nodes=[helper.make_node("If", ["a"], ["c"], **branches)]))
    if place == "sparse":
        made = helper.make_model(graph())
        made.graph.sparse_initializer.add().values.CopyFrom(tensor)
        return made
    if place == "training":
        made = helper.make_model(graph())
        made.training_info.add().algorithm.CopyFrom(graph(tensor))
        return made
    function = helper.make_function("d", "f", [], ["c"], [constant], [])
    return helper.make_model(graph(), functions=[function])


PLACES = ("initializer", "constant", "list", "branch", "sparse", "training", "function")


@pytest.mark.parametrize("place", PLACES)
def test_a_location_is_found_wherever_the_tensor_is(place: str) -> None:
    model = inside(external("w", "../../weights.bin"), place)
    assert external_files(model.SerializeToString()) == {"../../weights.bin"}


def test_weights_inside_the_graph_name_no_file() -> None:
    weights = numpy_helper.from_array(np.arange(10_000, dtype=np.float32), "w")
    assert external_files(helper.make_model(graph(weights)).SerializeToString()) == set()


def test_the_numbers_of_the_fields_are_those_of_onnx() -> None:
    messages = {
        "model": onnx.ModelProto,
        "training": onnx.TrainingInfoProto,
        "graph": onnx.GraphProto,
        "function": onnx.FunctionProto,
        "node": onnx.NodeProto,
        "attribute": onnx.AttributeProto,
        "sparse": onnx.SparseTensorProto,
        "tensor": onnx.TensorProto,
    }
    names = {message.DESCRIPTOR.full_name: name for name, message in messages.items()}
    for kind, message in messages.items():
        nested = {
            field.number: names[field.message_type.full_name]
            for field in message.DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.full_name in names
        }
        assert external_data._NESTED.get(kind, {}) == nested, kind
    assert onnx.TensorProto.EXTERNAL_DATA_FIELD_NUMBER == external_data._EXTERNAL_DATA


def test_bytes_that_are_no_graph_are_an_error_or_name_nothing() -> None:
    whole = inside(external("w", "weights.bin"), "branch").SerializeToString()
    rng = random.Random(0)
    for _ in range(500):
        data = bytearray(whole[: rng.randrange(len(whole) + 1)])
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert all(isinstance(name, str) for name in external_files(bytes(data)))
        except ValueError as error:
            assert str(error)
    for data in (b"", b"not a graph", b"\xff" * 20):
        with pytest.raises(ValueError):
            external_files(data)
