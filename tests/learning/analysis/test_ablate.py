"""Ablations: which cells there are, equal budgets, going on after an end, what the table says."""

import json
from dataclasses import replace

import pytest
from support.fake_runs import write_run
from support.inline_worker import inline_pool
from support.tiny_bundle import write_tiny_bundle

from z1_ros.errors import ConfigError, TrainingError, Z1Error
from z1_ros.files import write_json
from z1_ros.learning.analysis.ablate import DONE, AblateConfig, cells_of, main, write_results
from z1_ros.learning.core.run_log import read_records
from z1_ros.learning.grpo.config import GrpoConfig
from z1_ros.runtime.lock import locked

GRPO = GrpoConfig(group_size=4, groups=1, shared_chunks=1, learning_rate=1e-5)


class Workers:
    """Opens workers without processes; counts how often."""

    def __init__(self):
        self.opened = 0

    def __call__(self, maker, count):
        self.opened += 1
        return inline_pool(count)


def settings(tmp_path, **changes):
    if not (tmp_path / "tiny").exists():
        write_tiny_bundle(tmp_path / "tiny")
    given = {
        "bundle": str(tmp_path / "tiny"),
        "task": "OpenDrawer",
        "out": tmp_path / "out",
        "factors": ("calibration",),
        "seeds": (0,),
        "env_steps": 250,
        "max_chunks": 6,
        "workers": 2,
        "eval_every": 2,
        "eval_episodes": 2,
        "grpo": GRPO,
    }
    return AblateConfig(**(given | changes))


def test_one_change_at_a_time_and_all_combinations(tmp_path):
    cells = cells_of(settings(tmp_path, factors=("sharing", "calibration", "trained")))
    assert [cell.label for cell in cells] == [
        "prefix, decay, expert",
        "none, decay, expert",
        "tree, decay, expert",
        "prefix, none, expert",
        "prefix, penalty, expert",
        "prefix, decay, joint",
    ]
    everything = settings(
        tmp_path, factors=("sharing", "calibration", "trained"), full=True, seeds=(0, 1)
    )
    folders = [cell.folder for cell in cells_of(everything)]
    assert len(folders) == len(set(folders)) == 3 * 3 * 2 * 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return settings that were run, and their rows."""
    config = settings(tmp_path_factory.mktemp("ablation"))
    return config, main(config, Workers())


def test_every_cell_has_the_budget_and_a_row(finished):
    config, rows = finished
    assert [row["calibration"] for row in rows] == ["decay", "none", "penalty"]
    for row in rows:
        assert row["status"] == "done" and row["env_steps"] >= config.env_steps
        assert row["before"]["n"] == row["after"]["n"] == 2
        assert 0 <= row["group_filter_rate"] <= 1
        records = read_records(config.out / f"prefix-{row['calibration']}-expert-seed0")
        # The last iteration is the first that reached the budget; its policy is evaluated.
        spent = [r["env_steps"] for r in records if "train_success" in r]
        assert spent[-1] == row["env_steps"] and all(s < config.env_steps for s in spent[:-1])
        assert records[-1]["eval_success"] == row["after"]["success"]
    table = (config.out / "table.md").read_text("utf-8")
    assert table.count("\n| prefix |") == 3 and "the same 2 scenes" in table
    assert json.loads((config.out / "table.json").read_text())["cells"] == rows
    assert "calibration of rewards" in (config.out / "curves.svg").read_text("utf-8")


def test_finished_cells_are_not_run_again(finished):
    config, rows = finished
    workers = Workers()
    assert main(config, workers) == rows
    assert workers.opened == 0
    with pytest.raises(
        TrainingError, match=r"cell\.json was made with env_steps = 250, now it is 300;"
    ):
        main(replace(config, env_steps=300), workers)


def test_two_ablations_in_one_folder_are_refused(tmp_path):
    config, workers = settings(tmp_path), Workers()
    config.out.mkdir()
    with locked(config.out), pytest.raises(Z1Error, match="out is in use"):
        main(config, workers)
    assert workers.opened == 0


def test_a_cell_that_was_cut_off_goes_on_with_the_same_numbers(tmp_path):
    def cut_off(*arguments):
        pool = Workers()(*arguments)
        receive, calls = pool.receive, []

        def dying(worker):
            calls.append(worker)
            if len(calls) > 45:
                raise KeyboardInterrupt
            return receive(worker)

        pool.receive = dying
        return pool

    whole = main(settings(tmp_path, out=tmp_path / "whole", factors=("trained",)), Workers())
    config = settings(tmp_path, out=tmp_path / "parts", factors=("trained",))
    with pytest.raises(KeyboardInterrupt):
        main(config, cut_off)
    assert read_records(tmp_path / "parts" / "prefix-decay-expert-seed0")
    parts = main(config, Workers())
    for one, two in zip(whole, parts, strict=True):
        assert {k: v for k, v in one.items() if k != "minutes"} == {
            k: v for k, v in two.items() if k != "minutes"
        }


def test_a_policy_that_diverges_is_a_row(tmp_path):
    wild = replace(GRPO, groups=4, learning_rate=0.5, update_epochs=4, max_kl=1e-3, clip_norm=100.0)
    rows = main(settings(tmp_path, grpo=wild, factors=("trained",), env_steps=3000), Workers())
    assert [row["status"] for row in rows] == ["diverged", "diverged"]
    assert all(row["after"]["n"] == 2 for row in rows)
    assert "(diverged)" in (tmp_path / "out" / "table.md").read_text("utf-8")


def test_steps_to_reach_are_those_before_the_evaluation(tmp_path):
    config = settings(tmp_path, reach=0.7)
    for i, cell in enumerate(cells_of(config)):
        folder = write_run(config.out / cell.folder, first=0.5, last=0.5 + 0.2 * i, n=200)
        write_json(folder / DONE, {"status": "done", "made_with": {}})
    rows = write_results(config, cells_of(config))
    assert rows[0]["env_steps_to_reach"] is None
    reached = rows[2]["env_steps_to_reach"]
    records = read_records(config.out / cells_of(config)[2].folder)
    first = next(r for r in records if r.get("eval_success", 0) >= 0.7)
    assert reached == 9000 * first["iteration"]
    assert "not reached" in (config.out / "table.md").read_text("utf-8")


@pytest.mark.parametrize(
    "bad",
    [{"factors": ()}, {"seeds": ()}, {"env_steps": 0}, {"reach": 2.0}],
    ids=str,
)
def test_bad_settings_are_refused(tmp_path, bad):
    with pytest.raises(ConfigError):
        settings(tmp_path, **bad)
