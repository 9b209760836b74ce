"""Finds the external weight files of an ONNX graph without loading the graph.

The module parses the wire format of the protobuf: the deployed runtime has no onnx package, and
onnxruntime would open the files before they can be checked. Source: ``onnx/onnx.proto``.
"""

from collections.abc import Iterator

_MODEL = "model"
_TENSOR = "tensor"
_NESTED: dict[str, dict[int, str]] = {
    _MODEL: {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""Message -> field number -> message type of that field, for all that can contain a tensor."""
_EXTERNAL_DATA = 13
_MAX_DEPTH = 100
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


def external_files(data: bytes) -> set[str]:
    """Return the locations of the external files that a graph's tensors use.

    Raises:
        ValueError: The data is not an ONNX graph.
    """
    if not data:
        raise ValueError("it is empty")
    return set(_locations(memoryview(data), _MODEL, 0))


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError("its parts are nested too deeply")
    for number, value in _fields(message):
        if isinstance(value, int):
            continue
        if kind == _TENSOR and number == _EXTERNAL_DATA:
            entry = {n: bytes(v) for n, v in _fields(value) if not isinstance(v, int)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode("utf-8")
        elif number in _NESTED.get(kind, {}):
            yield from _locations(value, _NESTED[kind][number], depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield field number and content of each field: integers as int, other types as bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"byte {at} begins no field")
        if at + length > len(message):
            raise ValueError("it is cut short")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut short")
        byte, at = message[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"byte {at} is in no number")
