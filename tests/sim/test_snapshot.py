"""The bytes of a snapshot: what is packed comes back, anything else is refused."""

import numpy as np
import pytest

from z1_ros.errors import SnapshotMismatch
from z1_ros.sim.snapshot import pack, require_same, unpack

FACTS = {"task": "OpenDrawer", "seed": 3, "flags": {"water": True}}
ARRAYS = {
    "qpos": np.linspace(0, 1, 7),
    "image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
    "none": np.zeros(0, np.float32),
}


def test_facts_and_arrays_come_back_bit_for_bit() -> None:
    facts, arrays = unpack(pack(FACTS, ARRAYS))
    assert facts == FACTS and list(arrays) == list(ARRAYS)
    for name, value in ARRAYS.items():
        assert arrays[name].dtype == value.dtype and np.array_equal(arrays[name], value)
        assert arrays[name].flags.writeable
    assert pack(facts, arrays) == pack(FACTS, ARRAYS)


def test_dtypes_that_could_hold_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="'bad' has dtype object"):
        pack({}, {"bad": np.array([None])})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a snapshot"),
        (b"Z1SNAP", "not a snapshot"),
        (b"Z1SNAP\x09" + bytes(60), "format 9 is not supported"),
        (pack(FACTS, ARRAYS)[:-1], "damaged"),
        (pack(FACTS, ARRAYS) + b"x", "damaged"),
    ],
)
def test_other_bytes_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(SnapshotMismatch, match=words):
        unpack(data)


def test_the_first_fact_that_differs_is_named_with_both_sides() -> None:
    require_same(FACTS, {"seed": 3})
    with pytest.raises(SnapshotMismatch, match=r"seed is 3, here it is 4"):
        require_same(FACTS, {"task": "OpenDrawer", "seed": 4})
