"""Learning curves: what is read from a run's log, and what the picture says."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.fake_runs import write_run

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.learning.analysis.curves import COLOURS, Curve, CurvesConfig, draw, main
from z1_ros.learning.core.run_log import LOG, read_run


def test_a_picture_is_written_for_runs_of_several_tasks(tmp_path):
    runs = (
        write_run(tmp_path / "drawer-0"),
        write_run(tmp_path / "drawer-1", seed=1),
        write_run(tmp_path / "faucet", "TurnOnSinkFaucet"),
    )
    main(CurvesConfig(runs=runs, out=tmp_path / "made" / "curves.png"))
    with Image.open(tmp_path / "made" / "curves.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in COLOURS[:2]:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(1).sum() > 100
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_picture_says_task_run_count_and_kind_of_interval(tmp_path):
    runs = (write_run(tmp_path / "drawer-7", n=150), write_run(tmp_path / "more", n=200))
    main(CurvesConfig(runs=runs, out=tmp_path / "curves.svg", against=("minutes",)))
    text = (tmp_path / "curves.svg").read_text("utf-8")
    for said in ("OpenDrawer", "drawer-7", "n = 150 to 200", "95 % Wilson", "success [%]", "[min]"):
        assert said in text


def test_a_crowded_panel_leaves_training_rollouts_out(tmp_path):
    """Seeds of one setting share its colour and its place in the legend."""
    runs = [read_run(write_run(tmp_path / f"run{i}", seed=i)) for i in range(4)]
    curves = [Curve("ours" if i < 2 else "theirs", run) for i, run in enumerate(runs)]
    draw({"few": curves[1:3]}, ("env_steps",), tmp_path / "few.svg")
    draw({"many": curves}, ("env_steps",), tmp_path / "many.svg")
    few, many = ((tmp_path / f"{name}.svg").read_text("utf-8") for name in ("few", "many"))
    assert "training rollouts" in few and "training rollouts" not in many
    assert "line style: training seed" in many and many.count(">ours<") == 1


def test_an_evaluation_stands_where_training_was_when_it_was_made(tmp_path):
    """A record's evaluation comes before the iteration whose cost the record holds."""
    points = read_run(write_run(tmp_path / "run", n=100)).evaluations
    assert [p.iterations for p in points] == [0, 10, 20, 30, 40, 50, 60]
    assert [p.env_steps for p in points] == [9000 * i for i in range(0, 61, 10)]
    assert points[0].minutes == 0 and points[1].minutes == pytest.approx(500 / 60)
    logged = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert points[2].interval == pytest.approx(logged[20]["eval_ci95"])


def test_a_log_of_a_run_that_was_killed_and_resumed_is_read(tmp_path):
    """The unfinished line is passed over; of an iteration that was repeated the last counts."""
    folder = write_run(tmp_path / "run", iterations=12)
    first, *rest = (folder / LOG).read_text().splitlines()
    again = json.loads(first) | {"eval_success": 0.125}
    (folder / LOG).write_text("\n".join([first, first[:30], json.dumps(again), *rest]))
    run = read_run(folder)
    assert len(run.records) == 12 and run.evaluations[0].success == 0.125


def test_a_run_without_a_checkpoint_goes_by_its_folder(tmp_path):
    folder = write_run(tmp_path / "faucet-3")
    (folder / "checkpoint.safetensors").unlink()
    assert read_run(folder).task == "faucet-3"


def test_an_empty_folder_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(
        TrainingError, match=r"is no run of z1-train or z1-teach: it holds no log\.jsonl"
    ):
        main(CurvesConfig(runs=(tmp_path,), out=tmp_path / "curves.png"))
    assert not (tmp_path / "curves.png").exists()


def test_a_log_without_evaluations_is_refused(tmp_path):
    (tmp_path / LOG).write_text('{"iteration": 0, "train_success": 0.5}\n')
    with pytest.raises(TrainingError, match="no evaluation yet"):
        read_run(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / LOG).write_text('{"iteration": 0, "eval_success": 0.5}\n')
    with pytest.raises(TrainingError, match="eval_success but no eval_n"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "bad", [{"runs": ()}, {"out": "curves.jpg"}, {"against": ("hours",)}, {"against": ()}], ids=str
)
def test_bad_settings_are_refused(tmp_path, bad):
    if "out" in bad:
        bad = {"out": tmp_path / bad["out"]}
    with pytest.raises(ConfigError):
        CurvesConfig(**({"runs": (tmp_path,)} | bad))
