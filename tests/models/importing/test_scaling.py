"""Fields, statistics and modes of a checkpoint, brought together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.foreign import BASE_FIRST, EE_FIRST, import_config, stats_of

from z1_ros.errors import CheckpointError, ConfigError
from z1_ros.models.importing.norm_stats import Stats
from z1_ros.models.importing.origin import Origin
from z1_ros.models.importing.scaling import UNSTATED, plan_scaling
from z1_ros.specs import PANDA_OMRON


def stats(order=EE_FIRST, **changed) -> Stats:
    found = {
        kind: {part: np.asarray(values) for part, values in parts.items()}
        for kind, parts in stats_of(order, **changed).items()
    }
    return Stats(**found, form="openpi", file=Path("norm_stats.json"))


def plan(found, origin=None, order=EE_FIRST, **settings):
    config = import_config(Path("pi05"), **settings)
    return plan_scaling(PANDA_OMRON, origin or Origin(kind="openpi"), found, order, config)


def test_fields_and_statistics_come_in_the_order_of_the_columns() -> None:
    made = plan(stats())
    assert tuple(field.name for field in made.action) == EE_FIRST.action
    assert made.normalization.mode == made.normalization.action_mode == "quantile"
    assert made.normalization.form == "openpi" and made.notes == (UNSTATED,)
    assert len(made.normalization.action.q01) == PANDA_OMRON.action_dim


def test_a_stated_mode_wins_over_the_files() -> None:
    origin = Origin(kind="lerobot", modes={"state": "QUANTILES", "action": "MIN_MAX"})
    assert plan(stats(), origin).modes == {"state": "QUANTILES", "action": "MIN_MAX"}
    made = plan(stats(), origin, norm_mode="mean_std")
    assert made.normalization.mode == "mean_std" and made.normalization.action.std


def test_without_state_in_the_prompt_none_is_asked_for() -> None:
    made = plan(stats(), discrete_state=False)
    assert made.state == () and made.normalization.state.q01 == ()


def test_another_order_is_recognised_and_sizes_must_add_up() -> None:
    with pytest.raises(CheckpointError, match=r"look like base-first\."):
        plan(stats(BASE_FIRST))
    assert (
        "Make sure that the order" in plan(stats(BASE_FIRST), allow_suspicious_stats=True).notes[0]
    )
    with pytest.raises(ConfigError, match="action has 7 numbers"):
        plan(stats(), Origin(kind="lerobot", vectors={"action": 7}))


def test_an_action_that_never_changed_is_noted() -> None:
    still = np.zeros((2000, 4))
    made = plan(stats(base_motion=still))
    (note,) = (text for text in made.notes if "never changed" in text)
    assert "base_motion.forward" in note and "gripper_close" not in note


def test_a_switch_between_zero_and_one_is_mapped_to_minus_one_and_one() -> None:
    found = stats()
    at = [name for field in plan(found).action for name in field.dim_names]
    column = at.index("gripper_close.close")
    parts = {part: np.array(values) for part, values in found.action.items()}
    for part, values in parts.items():
        values[column] = values[column] / 2 + (0 if part == "std" else 0.5)
    made = plan(replace(found, action=parts))
    scaling = made.normalization.action
    assert (scaling.q01[column], scaling.q99[column]) == (-1, 1)
    assert any("is 0 or 1 in the checkpoint" in note for note in made.notes)
