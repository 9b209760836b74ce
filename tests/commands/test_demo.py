"""z1-demo: what it shows of the episodes that it ran."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from z1_ros.commands import demo
from z1_ros.commands.demo import DemoConfig, TaskRun, render_table, report, write_videos
from z1_ros.errors import BackendUnavailable, ConfigError, GraphError
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.sim.episodes import EpisodeResult


def result(seed: int, *, success: bool) -> EpisodeResult:
    return EpisodeResult(
        task="OpenDrawer", seed=seed, instruction="open it", success=success, steps=60
    )


def run_of(*successes: bool) -> TaskRun:
    """Return a task of which episodes are finished; frames are as bright as their number."""
    run = TaskRun("OpenDrawer")
    for number, success in enumerate(successes):
        run.frames = [np.full((12, 16, 3), number, np.uint8)] * 3
        run.keep(result(20_000 + number, success=success))
    return run


def console() -> Console:
    return Console(file=io.StringIO(), width=100)


@pytest.mark.parametrize(
    ("successes", "shown"),
    [((False, True, True), 1), ((True, False), 0), ((False, False), 0)],
    ids=str,
)
def test_the_first_success_is_shown_or_else_the_first_episode(successes, shown: int) -> None:
    run = run_of(*successes)
    assert run.shown == run.results[shown] and run.video[0].max() == shown
    assert not run.frames and not run.doing


def test_every_task_gets_a_picture_and_a_video(tmp_path: Path) -> None:
    write_videos(tmp_path, [run_of(False, True), TaskRun("TurnOnMicrowave")], console())
    assert {path.name for path in tmp_path.iterdir()} >= {"OpenDrawer.png", "strip.png"}
    image = cv2.imread(str(tmp_path / "strip.png"))
    assert image.shape[1] > demo.STRIP_FRAMES * 16


def test_without_ffmpeg_there_are_pictures_and_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise BackendUnavailable("videos need imageio-ffmpeg")

    monkeypatch.setattr(demo, "write_mp4", refuse)
    screen = console()
    write_videos(tmp_path, [run_of(True), run_of(False)], screen)
    assert (tmp_path / "strip.png").is_file()
    assert screen.file.getvalue() == "no videos, only pictures: videos need imageio-ffmpeg\n"


def test_no_frame_at_all_is_an_error(tmp_path: Path) -> None:
    run = TaskRun("OpenDrawer")
    run.keep(result(20_000, success=True))
    with pytest.raises(GraphError, match="no frame arrived on camera/video/image"):
        write_videos(tmp_path, [run], console())


def test_the_table_says_what_is_known_so_far() -> None:
    run, waiting = run_of(True, False), TaskRun("TurnOnMicrowave", doing="scene 20000, step 8")
    run.latency = {"infer_p50_ms": 41.0, "infer_p99_ms": 73.0}
    screen = console()
    screen.print(render_table([run, waiting], "held-out scenes"))
    said = screen.file.getvalue()
    assert "1/2" in said and "41 / 73" in said and "open it" in said and "step 8" in said


def test_the_report_holds_every_episode() -> None:
    found = report(DemoConfig(), load_bundle("kitchen-z1"), [run_of(True, False)])
    row = json.loads(json.dumps(found))["tasks"]["OpenDrawer"]
    assert (row["success"], row["n"]) == (1, 2)
    assert [episode["seed"] for episode in row["episodes"]] == [20_000, 20_001]


@pytest.mark.parametrize(
    "bad",
    [{"tasks": "OpenDrawr"}, {"video_size": 4}, {"seeds": "20006:20000"}, {"robot": "kitchn"}],
    ids=str,
)
def test_bad_settings_are_refused(bad) -> None:
    with pytest.raises(ConfigError):
        DemoConfig(**bad)


def test_out_must_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        DemoConfig(out=tmp_path / "mine")
