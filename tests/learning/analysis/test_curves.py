"""Learning curves: what the picture says."""

import numpy as np
import pytest
from PIL import Image
from support.fake_runs import write_run

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.learning.analysis.curves import COLOURS, Curve, CurvesConfig, draw, main
from z1_ros.learning.core.run_log import read_run


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


def test_an_empty_folder_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(
        TrainingError, match=r"is no run of z1-train or z1-teach: it holds no log\.jsonl"
    ):
        main(CurvesConfig(runs=(tmp_path,), out=tmp_path / "curves.png"))
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("bad", [{"runs": ()}, {"out": "curves.jpg"}, {"against": ()}], ids=str)
def test_bad_settings_are_refused(tmp_path, bad):
    if "out" in bad:
        bad = {"out": tmp_path / bad["out"]}
    with pytest.raises(ConfigError):
        CurvesConfig(**({"runs": (tmp_path,)} | bad))
