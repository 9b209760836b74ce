"""Statistics of every form are found and read, or refused with a sentence."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.foreign import (
    DATA,
    EE_FIRST,
    edit_json,
    edit_normalizers,
    openpi_stats,
    stats_of,
    write_json,
    write_lerobot_stats,
)

from z1_ros.errors import CheckpointError, ConfigError
from z1_ros.models.importing.norm_stats import cut, identity, norm_stats, read_stats

STATS = stats_of(EE_FIRST)


@pytest.fixture
def lerobot(tmp_path):
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        (tmp_path / name).write_bytes((DATA / "processor" / name).read_bytes())
    write_lerobot_stats(tmp_path, STATS)
    return tmp_path


def assert_same(found, form):
    assert found.form == form
    for kind in ("state", "action"):
        for part, values in getattr(found, kind).items():
            np.testing.assert_allclose(values, STATS[kind][part], rtol=1e-6)
        assert {"mean", "std", "q01", "q99"} <= set(getattr(found, kind))


@pytest.mark.parametrize("wrapped", [True, False])
def test_openpi_files_are_read_with_and_without_their_wrapper(tmp_path, wrapped):
    data = openpi_stats(STATS)
    file = write_json(tmp_path / "norm_stats.json", data if wrapped else data["norm_stats"])
    assert_same(read_stats(file), "openpi")
    assert_same(read_stats(tmp_path), "openpi")


@pytest.mark.parametrize("place", ["assets", "assets/droid", "assets/physical-intelligence/libero"])
def test_openpi_checkpoints_are_searched(tmp_path, place):
    write_json(tmp_path / place / "norm_stats.json", openpi_stats(STATS))
    assert_same(read_stats(tmp_path), "openpi")


def test_one_of_several_assets_is_chosen_by_id(tmp_path):
    for name in ("droid", "trossen"):
        write_json(tmp_path / "assets" / name / "norm_stats.json", openpi_stats(STATS))
    with pytest.raises(ConfigError, match="choose --asset-id: droid, trossen"):
        read_stats(tmp_path)
    assert read_stats(tmp_path, "trossen").file.parent.name == "trossen"
    with pytest.raises(ConfigError, match=r"no asset id 'x'.*it has: droid, trossen"):
        read_stats(tmp_path, "x")


def test_data_set_statistics_are_read(tmp_path):
    data = {"observation.state": STATS["state"], "action": STATS["action"], "timestamp": {}}
    file = write_json(tmp_path / "meta" / "stats.json", data)
    for path in (file, file.parent, tmp_path):
        assert_same(read_stats(path), "lerobot")


def test_processors_are_read_wherever_their_state_file_is(lerobot):
    found = read_stats(lerobot)
    assert_same(found, "lerobot")
    assert found.modes == {"state": "QUANTILES", "action": "QUANTILES"}
    for file in lerobot.glob("*.safetensors"):
        file.rename(lerobot / f"elsewhere_{file.name}")
    edit_normalizers(
        lerobot, lambda step: step.update(state_file=f"elsewhere_{step['state_file']}")
    )
    assert_same(read_stats(lerobot), "lerobot")
    assert_same(read_stats(lerobot / "policy_preprocessor.json"), "lerobot")
    assert_same(read_stats(next(lerobot.glob("elsewhere_policy_pre*"))), "lerobot")


def test_modes_of_state_and_action_may_differ(lerobot):
    norm_map = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MIN_MAX"}
    edit_normalizers(lerobot, lambda step: step["config"].update(norm_map=norm_map))
    assert read_stats(lerobot).modes == {"state": "MEAN_STD", "action": "MIN_MAX"}


@pytest.mark.parametrize(
    ("norm_map", "words"),
    [
        ({"STATE": "QUANTILE"}, r"normalises the state by 'QUANTILE'.*Did you mean 'QUANTILES'"),
        ({"VISUAL": "MEAN_STD"}, "normalises images by 'MEAN_STD'"),
        ({"ACTION": ["MEAN_STD"]}, r"normalises the action by list of 1"),
    ],
)
def test_unknown_modes_are_refused(lerobot, norm_map, words):
    edit_json(
        lerobot / "policy_preprocessor.json",
        lambda d: d["steps"][3]["config"].update(norm_map=norm_map),
    )
    with pytest.raises(CheckpointError, match=words):
        read_stats(lerobot)


def test_pipelines_that_disagree_are_refused(lerobot):
    other = {"action.mean": np.zeros(12, np.float32)}
    save_file(other, next(lerobot.glob("policy_postprocessor_*.safetensors")))
    with pytest.raises(CheckpointError, match="disagree about the actions' mean"):
        read_stats(lerobot)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "not readable JSON"),
        (b"{", "not readable JSON"),
        (b"[1]", "must hold a JSON object, got list"),
        (b'{"norm_stats": 3}', "no statistics of state and actions"),
        (b'{"mean": [1]}', "expected openpi's keys state and actions"),
        (b'{"state": 3, "actions": {}}', "state is not an object"),
        (b'{"state": {"mean": "a"}, "actions": {}}', r"state\.mean is not a list of numbers"),
        (b'{"state": {"mean": [[1]]}, "actions": {}}', r"state\.mean has shape \(1, 1\)"),
        (b'{"state": {"mean": [1], "std": [1, 2]}}', "parts of several lengths"),
    ],
)
def test_malformed_files_are_one_clear_error(tmp_path, content, words):
    file = tmp_path / "norm_stats.json"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as error:
        read_stats(file)
    assert str(file) in str(error.value)


def test_what_is_missing_is_asked_for(lerobot, tmp_path):
    with pytest.raises(CheckpointError, match="there is no such path"):
        read_stats(tmp_path / "nope")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="pass --norm-stats"):
        read_stats(tmp_path / "empty")
    next(lerobot.glob("policy_preprocessor_*.safetensors")).write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_stats(lerobot)
    next(lerobot.glob("policy_preprocessor_*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="no normalisation statistics at"):
        read_stats(lerobot)
    edit_json(
        lerobot / "policy_preprocessor.json",
        lambda d: d["steps"][3].update(state_file="../../etc/passwd.safetensors"),
    )
    with pytest.raises(CheckpointError, match="not a plain file name"):
        read_stats(lerobot)


def test_a_processor_without_statistics_has_none(lerobot):
    """As LeRobot publishes pi05_base."""
    edit_normalizers(lerobot, lambda step: step.pop("state_file"))
    found = read_stats(lerobot)
    assert found.state == found.action == {}
    with pytest.raises(CheckpointError, match=r"no statistics of the state: pass --norm-stats"):
        norm_stats(found.state, "QUANTILES", "the state")


def test_padding_is_cut_off_and_nothing_else():
    padded = {k: np.asarray(v) for k, v in stats_of(EE_FIRST, pad=32)["state"].items()}
    assert {len(v) for v in padded.values()} == {32}
    kept = cut(padded, 16, "the state")
    for part, values in kept.items():
        np.testing.assert_array_equal(values, np.float32(STATS["state"][part]))
    ones = {**padded, "std": np.r_[padded["std"][:16], np.ones(16)]}
    assert len(cut(ones, 16, "the state")["std"]) == 16
    with pytest.raises(CheckpointError, match=r"name only 14; number 14 is no padding"):
        cut(padded, 14, "the state")
    with pytest.raises(CheckpointError, match="statistics of 32 numbers, not 40"):
        cut(padded, 40, "the state")


@pytest.mark.parametrize(
    ("mode", "names", "ends"),
    [
        ("QUANTILES", ("q01", "q99"), ("q01", "q99")),
        ("QUANTILE10", ("q01", "q99"), ("q10", "q90")),
        ("MIN_MAX", ("q01", "q99"), ("min", "max")),
        ("MEAN_STD", ("mean", "std"), ("mean", "std")),
    ],
)
def test_each_mode_keeps_the_statistics_that_it_needs(mode, names, ends):
    parts = {k: np.asarray(v) for k, v in STATS["action"].items()}
    made = norm_stats(parts, mode, "the action")
    assert [getattr(made, n) for n in names] == [tuple(parts[end].tolist()) for end in ends]
    others = {"mean", "std", "q01", "q99"} - set(names)
    assert all(getattr(made, name) == () for name in others)


def test_identity_is_a_z_score_that_changes_nothing():
    made = norm_stats(identity(2), "IDENTITY", "the action")
    assert (made.mean, made.std) == ((0.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize(
    ("mode", "part", "value", "words"),
    [
        ("QUANTILES", "q99", np.nan, "q99 of number 1 is not finite"),
        ("QUANTILES", "q99", -np.inf, "q99 of number 1 is not finite"),
        ("QUANTILES", "q99", -9.0, r"number 1 has q01 .* and q99 -9, which cannot be"),
        ("MEAN_STD", "std", -0.1, r"and std -0\.1, which cannot be"),
        ("MEAN_STD", "mean", np.nan, "mean of number 1 is not finite"),
    ],
)
def test_impossible_statistics_are_refused(mode, part, value, words):
    parts = {k: np.asarray(v) for k, v in STATS["action"].items()}
    parts[part][1] = value
    with pytest.raises(CheckpointError, match=words):
        norm_stats(parts, mode, "the action")


def test_a_part_that_the_mode_does_not_need_may_be_anything():
    parts = {k: np.asarray(v) for k, v in STATS["action"].items()}
    parts["std"][:] = np.nan
    assert norm_stats(parts, "QUANTILES", "the action").std == ()


def test_a_mode_without_its_statistics_names_what_there_is():
    """LeRobot data sets of version 2 have no quantiles."""
    parts = {part: np.asarray(STATS["action"][part]) for part in ("mean", "std", "min", "max")}
    with pytest.raises(
        CheckpointError,
        match=r"lack q01 and q99 \(there are: mean, std, min, max\).*--norm-mode mean_std",
    ):
        norm_stats(parts, "QUANTILES", "the action")


def test_the_golden_processor_gives_the_golden_statistics():
    golden = json.loads((DATA / "processor" / "processor_golden.json").read_text())["stats"]
    found = read_stats(DATA / "processor")
    for kind, name in (("state", "observation.state"), ("action", "action")):
        for part, values in getattr(found, kind).items():
            np.testing.assert_allclose(values, golden[name][part], rtol=1e-6)
