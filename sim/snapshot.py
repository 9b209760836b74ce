"""Format of snapshots: a JSON header, named arrays and a checksum, without pickled data.

Layout: ``Z1SNAP`` + format (1 byte) + header length (4 bytes, little endian) + header
(UTF-8 JSON) + concatenated arrays + SHA-256 of all preceding bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from z1_ros.errors import SnapshotMismatch

_MAGIC = b"Z1SNAP"
_FORMAT = 1
_PREFIX = len(_MAGIC) + 5
_DIGEST = 32
_DTYPES = ("<f8", "<f4", "<i8", "<i4", "|u1", "|b1")


def pack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a snapshot of facts (JSON data) and named arrays of any shape."""
    listed, parts = [], []
    for name, value in arrays.items():
        array = np.ascontiguousarray(value)
        if array.dtype.str not in _DTYPES:
            raise TypeError(f"snapshot array {name!r} has dtype {array.dtype}")
        listed.append([name, array.dtype.str, list(array.shape)])
        parts.append(array.tobytes())
    text = json.dumps({"facts": dict(header), "arrays": listed}, sort_keys=True).encode()
    body = _MAGIC + bytes([_FORMAT]) + len(text).to_bytes(4, "little") + text + b"".join(parts)
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the facts and arrays of a snapshot.

    Raises:
        SnapshotMismatch: The bytes are not a snapshot, have another format, or are damaged.
    """
    data = bytes(data)
    if len(data) < _PREFIX + _DIGEST or not data.startswith(_MAGIC):
        raise SnapshotMismatch(f"these {len(data)} bytes are not a snapshot (no Z1SNAP header)")
    if data[len(_MAGIC)] != _FORMAT:
        raise SnapshotMismatch(
            f"snapshot format {data[len(_MAGIC)]} is not supported; this version reads {_FORMAT}"
        )
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotMismatch("the snapshot is damaged: its checksum does not match")
    end = _PREFIX + int.from_bytes(body[_PREFIX - 4 : _PREFIX], "little")
    header = json.loads(body[_PREFIX:end])
    arrays = {}
    for name, dtype, shape in header["arrays"]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(body[end : end + size], dtype).reshape(shape).copy()
        end += size
    return header["facts"], arrays


def require_same(facts: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise SnapshotMismatch if a fact of a snapshot differs from ``here``; name both values."""
    for name, value in here.items():
        if facts.get(name) != value:
            raise SnapshotMismatch(
                f"the snapshot's {name} is {facts.get(name)!r}, here it is {value!r}"
            )
