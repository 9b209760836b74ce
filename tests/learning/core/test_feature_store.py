"""Prefix features in memory: rows come back as they were put, and no more than fit."""

import pytest
import torch

from z1_ros.learning.core.feature_store import FeatureStore
from z1_ros.models.network.pi05 import Prefix


def made_prefix(batch, seed=0, dtype=torch.float32) -> Prefix:
    random = torch.Generator().manual_seed(seed)
    k, v = torch.randn(2, 3, batch, 1, 5, 4, generator=random).to(dtype)
    return Prefix(k, v, torch.rand(batch, 5, generator=random) < 0.8)


def rows_of(prefix: Prefix, rows) -> Prefix:
    """Return some rows of a batch."""
    return Prefix(prefix.k[:, rows], prefix.v[:, rows], prefix.valid[rows])


def assert_same(found: Prefix, wanted: Prefix) -> None:
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))


def put_all(store, rows, prefix) -> list[bool]:
    return [store.put(row, prefix, at) for at, row in enumerate(rows)]


def row_gb(prefix: Prefix) -> float:
    """Memory of one observation [GB]."""
    return (2 * prefix.k[:, 0].nbytes + prefix.valid.shape[1]) / 1e9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_back_as_they_were_put_in_any_order(dtype):
    prefix, store = made_prefix(4, dtype=dtype), FeatureStore()
    assert all(put_all(store, [5, 0, 3, 2], prefix))
    assert [row in store for row in range(6)] == [True, False, True, True, False, True]
    found = store.read([2, 5, 2])
    assert found.k.dtype == dtype
    assert_same(found, rows_of(prefix, [3, 0, 3]))


def test_what_is_stored_does_not_change_with_the_batch_it_came_in():
    prefix, store = made_prefix(1), FeatureStore()
    store.put(0, prefix, 0)
    for part in prefix:
        part.zero_()
    assert_same(store.read([0]), made_prefix(1))


def test_a_row_can_be_put_again_and_takes_no_more_memory():
    one, other = made_prefix(2), made_prefix(1, seed=1)
    store = FeatureStore(2.5 * row_gb(one))
    put_all(store, [0, 1], one)
    assert store.put(1, other, 0) and len(store) == 2
    assert torch.equal(store.read([1]).v, other.v)
    assert torch.equal(store.read([0]).v, one.v[:, :1])


def test_no_more_rows_are_kept_than_the_memory_allows():
    prefix = made_prefix(4)
    store = FeatureStore(2.5 * row_gb(prefix))
    assert put_all(store, range(4), prefix) == [True, True, False, False]
    assert [row in store for row in range(4)] == [True, True, False, False]
    store.clear()
    assert len(store) == 0 and put_all(store, range(4), prefix)[:2] == [True, True]
    assert put_all(FeatureStore(1e-7), range(4), prefix) == [False] * 4


def test_what_is_not_stored_is_encoded_and_put_in_its_place():
    prefix, store = made_prefix(5), FeatureStore()
    put_all(store, [1, 3], rows_of(prefix, [1, 3]))
    rows, asked = torch.tensor([4, 1, 0, 3, 1]), []

    def encode(places):
        asked.extend(rows[places].tolist())
        return rows_of(prefix, rows[places])

    assert_same(store.fetch(rows, encode), rows_of(prefix, rows))
    assert asked == [4, 0]
    assert_same(store.fetch(torch.tensor([2, 4]), lambda places: prefix), prefix)


def test_nothing_is_encoded_where_all_is_stored():
    prefix, store = made_prefix(2), FeatureStore()
    put_all(store, [0, 1], prefix)
    assert_same(store.fetch(torch.tensor([1, 0]), None), rows_of(prefix, [1, 0]))
