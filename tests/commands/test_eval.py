"""z1-eval: the JSON that others read, stopping, and going on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from z1_ros.commands.eval import EvalConfig, Journal, main
from z1_ros.errors import ConfigError
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.sim.evaluation import EpisodeResult

FEW = {"tasks": "TurnOnSinkFaucet", "workers": 1}


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


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path) -> None:
    config = EvalConfig(seeds="10000:10002", json=tmp_path / "r.json", **FEW)
    journal = Journal(config, load_bundle(config.bundle))
    done = EpisodeResult(
        task="TurnOnSinkFaucet", seed=10000, instruction="turn it", success=False, steps=299
    )
    journal.add(done)
    with (tmp_path / "r.json.partial").open("a") as stream:
        stream.write('{"task": "TurnOnSi')  # killed while writing
    episodes = main(config)["episodes"]
    assert [e["seed"] for e in episodes] == [10000, 10001]
    assert episodes[0]["steps"] == 299, "a finished episode was run again"


def test_episodes_of_other_settings_are_not_mixed_in(tmp_path) -> None:
    bundle = load_bundle("kitchen-z1")
    Journal(EvalConfig(json=tmp_path / "r.json"), bundle)
    with pytest.raises(ConfigError, match="other settings"):
        Journal(EvalConfig(json=tmp_path / "r.json", delay_ms=100), bundle)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(number: signal.Signals) -> None:
    """Ctrl-C goes to the whole group, as a terminal sends it; SIGKILL to the command alone."""
    command = [sys.executable, "-m", "z1_ros.commands.eval", "--workers", "2"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    group = process.pid
    time.sleep(4.0)
    assert process.poll() is None, "it ended before it could be stopped"
    if number == signal.SIGINT:
        os.killpg(group, number)
    else:
        process.send_signal(number)
    process.wait()
    while _alive(group):
        time.sleep(0.1)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
