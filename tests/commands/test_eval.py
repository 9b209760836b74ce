"""z1-eval: the JSON that others read, stopping, going on, and what it says meanwhile."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from support import ROOT

from z1_ros.commands.eval import EvalConfig, main, run_missing
from z1_ros.errors import ConfigError, SeedError
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.sim.episodes import EpisodeResult
from z1_ros.sim.journal import Journal

FEW = {"tasks": "TurnOnSinkFaucet", "workers": 1}
COMMAND = (
    sys.executable,
    "-c",
    "from z1_ros.commands.entry import evaluate; raise SystemExit(evaluate())",
)


def settings(config: EvalConfig) -> dict:
    """Return what an evaluation writes at the head of its journal."""
    return {
        "bundle": load_bundle(config.bundle).sha256,
        "robot": config.robot,
        "through": config.through,
        "delay_ms": config.delay_ms,
        "backend": config.backend,
    }


def test_the_report_has_the_shape_that_is_promised(tmp_path) -> None:
    path = tmp_path / "r.json"
    main(EvalConfig(seeds="10000:10002", json=path, **FEW))
    report = json.loads(path.read_text())
    assert report["bundle"] == load_bundle("kitchen-z1").sha256
    assert report["through"] == "inproc" and report["sampler"] == "ode"
    row = report["tasks"]["TurnOnSinkFaucet"]
    assert row["n"] == 2 and 0 <= row["success"] <= 2 and row["mean_steps"] > 0
    assert row["ci95"][0] <= row["success"] / 2 <= row["ci95"][1]
    assert report["mean"] == row["success"] / 2
    assert not path.with_name("r.json.partial").exists()


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path, capsys) -> None:
    config = EvalConfig(seeds="10000:10002", json=tmp_path / "r.json", **FEW)
    done = EpisodeResult(
        task="TurnOnSinkFaucet", seed=10000, instruction="turn it", success=False, steps=299
    )
    journal = Journal(config.json, settings(config))
    journal.add(done)
    del journal
    episodes = main(config)["episodes"]
    assert [e["seed"] for e in episodes] == [10000, 10001]
    assert episodes[0]["steps"] == 299, "a finished episode was run again"
    said = " ".join(capsys.readouterr().out.split())
    assert "2 episodes in the kitchen" in said and "1 of them are kept" in said


def test_results_come_in_the_order_of_the_jobs(tmp_path) -> None:
    config = EvalConfig(tasks="TurnOnMicrowave,OpenDrawer", seeds="10001,10000")
    journal = Journal(tmp_path / "r.json", {})
    for task, seed in reversed(config.jobs):
        journal.finished.append(
            EpisodeResult(task=task, seed=seed, instruction="", success=True, steps=1)
        )
    results = run_missing(config, journal, Console(file=io.StringIO()))
    assert [(r.task, r.seed) for r in results] == config.jobs


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"delay_ms": float("nan")}, "delay_ms is nan, expected 0 to 60000"),
        ({"delay_ms": float("inf")}, "delay_ms is inf, expected 0 to 60000"),
        ({"delay_ms": -1.0}, "delay_ms is -1.0"),
        ({"seeds": "10000:99999999999"}, "at most 100000 scenes"),
        ({"tasks": "OpenDrawr"}, "Did you mean 'OpenDrawer'"),
        ({"robot": "kitchn"}, "Did you mean 'kitchen'"),
        ({"workers": 100_000}, "expected 0 to 256 workers"),
        ({"threads": 0}, "1 to 256 threads"),
        ({"json": Path("/")}, "json: / is no regular file"),
        ({"json": Path("/dev/null")}, "json: /dev/null is no regular file"),
    ],
    ids=str,
)
def test_absurd_settings_are_one_sentence_before_anything_starts(bad, words) -> None:
    with pytest.raises(ConfigError, match=words):
        EvalConfig(**bad)


def test_training_seeds_are_refused() -> None:
    with pytest.raises(SeedError, match="for training"):
        EvalConfig(seeds="0:10")


def test_a_log_file_gets_the_plan_the_table_and_one_last_sentence(tmp_path) -> None:
    """On a terminal that knows ASCII alone, with a report that is whole all the same."""
    flags = ("--tasks", "TurnOnSinkFaucet", "--seeds", "10000:10002", "--json", "r.json")
    done = subprocess.run(
        [*COMMAND, *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii:replace"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("kitchen-z1: 2 episodes in the kitchen, through inproc")
    assert "of 2 episodes succeeded" in last and last.endswith("the report is r.json")
    assert json.loads((tmp_path / "r.json").read_text())["tasks"]["TurnOnSinkFaucet"]["n"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(number: signal.Signals) -> None:
    """Ctrl-C goes to the whole group, as a terminal sends it; SIGKILL to the command alone."""
    process = subprocess.Popen(
        [*COMMAND, "--workers", "2"], start_new_session=True, stdout=subprocess.DEVNULL
    )
    # Two workers, and the process in which Python keeps track of what they share.
    while len(_children(process.pid)) < 3:
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.wait()
    while _alive(process.pid):
        time.sleep(0.1)


def _children(pid: int) -> list[str]:
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += task.read_text().split()
    return found


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
