"""The simulator benchmark measures, reports and says what is missing."""

import json
import sys
from pathlib import Path

import pytest

from z1_ros.benchmarks.simulator import SimBenchConfig, main, summary
from z1_ros.errors import BackendUnavailable, ConfigError

QUICK = {"cameras": (0,), "blocks": 2, "seconds": 0.05}


def test_summary_is_median_min_and_max():
    assert summary([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_kitchen_alone_is_measured_and_written(tmp_path):
    path = tmp_path / "bench.json"
    report = main(SimBenchConfig(**QUICK, json=path))
    row = report["rows"][0]
    assert row["kitchen_steps_per_s"]["min"] > 20
    assert "ratio" not in row
    assert json.loads(path.read_text())["rows"] == report["rows"]


def test_a_python_without_robosuite_is_one_clear_error():
    with pytest.raises(BackendUnavailable, match="lift side cannot run"):
        main(SimBenchConfig(**QUICK, lift_python=Path(sys.executable)))


@pytest.mark.parametrize(
    "bad",
    [{"task": "OpenDrawr"}, {"lift_python": Path("no/python")}, {"cameras": (4,)}, {"blocks": 0}],
    ids=str,
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        SimBenchConfig(**bad)
