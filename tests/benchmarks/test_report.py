"""Every benchmark speaks of rows in the same way."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from z1_ros.benchmarks.report import Row, machine, publish, summary


@dataclass(frozen=True)
class Config:
    """Settings."""

    blocks: int = 3
    json: Path | None = None


def report(*rows: Row, path: Path | None = None, screen: Console | None = None) -> dict:
    return publish("z1-bench x", Config(json=path), rows, {"core": 1}, screen or Console())


def row(name: str, values, **more) -> Row:
    return Row(name=name, quantity="control steps", unit="1/s", values=values, **more)


def test_a_summary_is_median_min_and_max_in_four_digits() -> None:
    assert summary([3.0, 1.0, 2.00004]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_ratios_are_taken_block_by_block() -> None:
    found = report(row("ours", [2.0, 9.0, 8.0], baseline="theirs"), row("theirs", [1.0, 3.0, 4.0]))
    ours, theirs = found["rows"]
    assert ours["ratio"] == {"median": 2.0, "min": 2.0, "max": 3.0}
    assert (ours["median"], ours["n"], ours["values"]) == (8.0, 3, [2.0, 9.0, 8.0])
    assert theirs["ratio"] is None and theirs["baseline"] is None


def test_a_ratio_to_nothing_is_none() -> None:
    found = report(row("a", [1.0], baseline="b"), row("b", [0.0]), row("c", [1.0], baseline="d"))
    assert [r["ratio"] for r in found["rows"]] == [None, None, None]


def test_a_floor_says_how_far_the_median_is_from_it() -> None:
    (found,) = report(row("a", [6.0, 4.0, 5.0], floor=2.0))["rows"]
    assert (found["floor"], found["times_floor"]) == (2.0, 2.5)


def test_the_json_is_written_and_the_table_shows_every_row(tmp_path) -> None:
    screen = Console(file=io.StringIO(), width=160)
    rows = [row("ours", [2.0, 4.0], baseline="theirs"), row("theirs", [1.0, 1.0], floor=0.5)]
    found = report(*rows, path=tmp_path / "r.json", screen=screen)
    assert json.loads((tmp_path / "r.json").read_text()) == found
    assert set(found) == {"benchmark", "config", "machine", "facts", "rows"}
    said = screen.file.getvalue()
    assert "3 × theirs (2 … 4)" in said and "2 × floor 0.5" in said and "core: 1" in said
    assert "control steps [1/s], n = 2" in said


def test_the_machine_is_named() -> None:
    here = machine()
    assert here["cpu"] and here["cores"] >= 1 and here["load"] >= 0
    assert {"python", "numpy"} <= set(here["versions"])
