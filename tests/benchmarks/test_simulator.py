"""The simulator's benchmark measures, reports and says what is missing."""

import json
import sys
from pathlib import Path

import pytest

from z1_ros.benchmarks.simulator import SimBenchConfig, main
from z1_ros.errors import BackendUnavailable, ConfigError

QUICK = {"cameras": (0,), "blocks": 2, "seconds": 0.05}


def test_a_simulator_alone_is_measured_and_written(tmp_path):
    path = tmp_path / "bench.json"
    report = main(SimBenchConfig(**QUICK, json=path))
    (row,) = report["rows"]
    assert row["name"] == "kitchen PnPCounterToSink, 0 cameras"
    assert row["n"] == 2 and row["min"] > 0 and row["ratio"] is None
    assert json.loads(path.read_text())["rows"] == report["rows"]


def test_a_python_without_robosuite_is_one_clear_error():
    with pytest.raises(BackendUnavailable, match="robosuite Lift cannot run"):
        main(SimBenchConfig(**QUICK, lift_python=Path(sys.executable)))


@pytest.mark.parametrize(
    "bad",
    [
        {"task": "OpenDrawr"},
        {"robot": "kitchn"},
        {"lift_python": Path("no/python")},
        {"cameras": (4,)},
        {"blocks": 0},
        {"seconds": float("nan")},
    ],
    ids=str,
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        SimBenchConfig(**bad)
