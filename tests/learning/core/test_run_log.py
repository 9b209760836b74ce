"""The folder and the log of a run: what is written, what is read back, what is refused."""

import json
import math
import shutil
from contextlib import ExitStack

import pytest
from support.fake_runs import write_run

from z1_ros.errors import ConfigError, TrainingError
from z1_ros.learning.core.run import open_tensorboard
from z1_ros.learning.core.run_log import LOG, RunLog, read_records, read_run, run_folder

RECORDS = [
    {
        "iteration": i,
        "eval_success": 0.5 + 0.1 * i,
        "eval_n": 100,
        "eval_ci95": [0.4, 0.6],
        "train_success": 0.25,
        "chunks_to_success": 4.5,
        "kl": 0.01,
        "elapsed_s": 60.0 * i,
    }
    for i in range(3)
]


# The folder


def test_a_run_lies_beside_its_bundle_and_nothing_else_is_replaced(tmp_path, tiny_bundle):
    out, taken = tmp_path / "mine", tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").touch()
    assert run_folder(out) == tmp_path / "mine-run"
    assert run_folder(out, tmp_path / "elsewhere").is_dir()
    for run, folder, message in (
        (out, out, "would be replaced"),
        (out / "run", out, "would be replaced"),
        (tiny_bundle.path / "manifest.json", out, "cannot be the run's folder"),
        (None, taken, "exists and is no bundle"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_folder(folder, run)
    assert not out.exists()


# What is written


def test_every_scalar_of_an_iteration_is_written_to_tensorboard(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    with ExitStack() as stack:
        log = RunLog(tmp_path, open_tensorboard(tmp_path, stack))
        for record in RECORDS:
            log.write(record)
    found = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    scalars = {name for name, value in RECORDS[0].items() if not isinstance(value, list)}
    assert set(found.Tags()["scalars"]) >= scalars - {"iteration"}
    events = found.Scalars("eval_success")
    assert [event.step for event in events] == [0, 1, 2]
    assert [event.value for event in events] == pytest.approx([0.5, 0.6, 0.7])


def test_the_log_holds_what_tensorboard_cannot_show(tmp_path):
    for record in RECORDS:
        RunLog(tmp_path).write(record)
    logged = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [record["eval_ci95"] for record in logged] == [[0.4, 0.6]] * 3


def test_the_terminal_shows_the_essential_metrics_and_the_remaining_time(tmp_path, capsys):
    RunLog(tmp_path).write(RECORDS[1], "7 min left")
    RunLog(tmp_path).write(RECORDS[2])
    first, second = capsys.readouterr().out.splitlines()
    wanted = "iteration 1  eval_success 0.6  train_success 0.25  chunks_to_success 4.5  7 min left"
    assert first == wanted
    assert second.startswith("iteration 2  eval_success 0.7") and "left" not in second


def test_a_line_that_was_torn_off_costs_no_other(tmp_path):
    (tmp_path / LOG).write_text('{"iteration": 0, "loss": 1.0}\n{"iterat')
    log = RunLog(tmp_path)
    log.write({"iteration": 1, "loss": 2.0, "chunks_to_success": math.nan})
    log.write({"iteration": 2, "loss": 3.0})
    assert [r["loss"] for r in read_records(tmp_path)] == [1.0, 2.0, 3.0]
    assert "NaN" not in (tmp_path / LOG).read_text()


# What is read back


def test_a_folder_without_a_log_has_no_records(tmp_path):
    assert read_records(tmp_path) == []


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


@pytest.mark.parametrize(
    "line", ["[1, 2]", "null", "{}", '{"iteration": null}', '{"iteration": "x"}', "\x00"]
)
def test_a_line_that_is_no_record_is_passed_over(tmp_path, line):
    (tmp_path / LOG).write_text(f'{line}\n{{"iteration": 4, "loss": 1.0}}\n')
    assert [r["iteration"] for r in read_records(tmp_path)] == [4]


def test_a_run_without_a_checkpoint_goes_by_its_folder(tmp_path):
    folder = write_run(tmp_path / "faucet-3")
    assert read_run(folder).task == "OpenDrawer"
    (folder / "checkpoint.safetensors").unlink()
    assert read_run(folder).task == "faucet-3"


def test_a_log_without_evaluations_is_refused(tmp_path):
    (tmp_path / LOG).write_text('{"iteration": 0, "train_success": 0.5}\n')
    with pytest.raises(TrainingError, match="no evaluation yet"):
        read_run(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / LOG).write_text('{"iteration": 0, "eval_success": 0.5}\n')
    with pytest.raises(TrainingError, match="eval_success but no eval_n"):
        read_run(tmp_path)
