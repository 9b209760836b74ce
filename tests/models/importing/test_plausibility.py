"""Statistics give a wrong order of columns away."""

import numpy as np
import pytest
from support.foreign import BASE_FIRST, EE_FIRST, stats_of

from z1_ros.models.importing.modality import KINDS, fields_of
from z1_ros.models.importing.plausibility import (
    Column,
    find_suspicious,
    rescale,
    switch_values,
    switches_from_zero,
)
from z1_ros.specs import PANDA_OMRON

ORDERS = {"ee-first": EE_FIRST, "base-first": BASE_FIRST}
KEPT = {
    "all": ("mean", "std", "min", "max", "q01", "q99"),
    "openpi": ("mean", "std", "q01", "q99"),
    "mean and std": ("mean", "std"),
}


def look(order_of_data, order, kept=KEPT["all"], **changed):
    stats = stats_of(order_of_data, **changed)
    parts = {
        kind: {p: np.asarray(v) for p, v in stats[kind].items() if p in kept} for kind in KINDS
    }
    fields = {kind: fields_of(getattr(order, kind), PANDA_OMRON, kind) for kind in KINDS}
    return find_suspicious(fields, parts, PANDA_OMRON)


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("name", ORDERS)
def test_the_right_order_looks_right(name, kept):
    assert look(ORDERS[name], ORDERS[name], kept) == []


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize(("data", "said"), [("ee-first", "base-first"), ("base-first", "ee-first")])
def test_the_other_order_does_not(data, said, kept):
    found = " ".join(look(ORDERS[data], ORDERS[said], kept))
    assert "base_rotation" in found and "end_effector_position_relative" in found
    assert "q01" not in kept or "control_mode" in found or "gripper_close" in found


def test_absolute_joint_angles_are_no_commands_between_minus_one_and_one():
    angles = np.random.default_rng(0).uniform(-2.8, 2.8, (2000, 3))
    found = look(EE_FIRST, EE_FIRST, end_effector_rotation=angles)
    assert len(found) == 3
    assert found[0].startswith("column 3 (end_effector_rotation.x) has -2.")
    assert found[0].endswith("expected within -1 … 1")


def column(**stats):
    return Column("gripper_close.close", "sign", 6, stats)


def switching(values):
    values = np.asarray(values, np.float64)
    low, high = np.quantile(values, (0.01, 0.99))
    return column(mean=values.mean(), std=values.std(), q01=low, q99=high)


@pytest.mark.parametrize("share", [0.0, 0.004, 0.3, 0.97, 1.0])
def test_switches_are_told_apart_whatever_their_share(share):
    on = np.arange(1000) < 1000 * share
    signs = switch_values(switching(np.where(on, 1, -1)))
    bits = switch_values(switching(np.where(on, 1, 0)))
    assert signs == (-1, 1)
    # A switch that is always on says the same in both.
    assert bits == ((0, 1) if share < 1 else (-1, 1))


def test_continuous_columns_are_no_switches():
    random = np.random.default_rng(0)
    assert switch_values(switching(random.uniform(-1, 1, 5000))) is None
    assert switch_values(switching(random.normal(0, 0.1, 5000))) is None
    assert switch_values(switching(random.choice([-2, 2], 5000))) is None


def test_the_range_alone_also_tells():
    assert switch_values(column(min=-1, max=1)) == (-1, 1)
    assert switch_values(column(min=0, max=1)) == (0, 1)
    assert switch_values(column(min=0, max=255)) is None


def test_switches_from_zero_are_mapped_by_their_statistics():
    fields = fields_of(EE_FIRST.action, PANDA_OMRON, "action")
    bits = {"gripper_close": np.where(np.arange(2000)[:, None] % 3 == 0, 1.0, 0.0)}
    zeroed = stats_of(EE_FIRST, **bits)["action"]
    parts = {part: np.asarray(values) for part, values in zeroed.items()}
    mapped = switches_from_zero(fields, parts)
    assert [c.name for c in mapped] == ["gripper_close.close"]
    signed = stats_of(EE_FIRST, gripper_close=2 * bits["gripper_close"] - 1)["action"]
    for part, values in rescale(parts, mapped).items():
        np.testing.assert_allclose(values, signed[part], atol=1e-6)
    np.testing.assert_array_equal(parts["min"], zeroed["min"])
