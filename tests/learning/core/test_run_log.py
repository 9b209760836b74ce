"""What z1-train logs arrives in TensorBoard, which its extra installs."""

import json
from contextlib import ExitStack

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from z1_ros.learning.core.learner import report, tensorboard

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


def test_every_scalar_of_an_iteration_is_written(tmp_path):
    with ExitStack() as stack:
        board = tensorboard(tmp_path, stack)
        for record in RECORDS:
            report(record, tmp_path, board)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    scalars = {name for name, value in RECORDS[0].items() if not isinstance(value, list)}
    assert set(found.Tags()["scalars"]) >= scalars - {"iteration"}
    events = found.Scalars("eval_success")
    assert [event.step for event in events] == [0, 1, 2]
    assert [event.value for event in events] == pytest.approx([0.5, 0.6, 0.7])


def test_the_log_holds_what_tensorboard_cannot_show(tmp_path):
    for record in RECORDS:
        report(record, tmp_path, None)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["eval_ci95"] for record in logged] == [[0.4, 0.6]] * 3
