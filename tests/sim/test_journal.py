"""The journal of an evaluation: it goes on where it may, and refuses in one sentence."""

import json
import os

import pytest

from z1_ros.errors import ConfigError
from z1_ros.sim.episodes import EpisodeResult
from z1_ros.sim.journal import Journal

SETTINGS = {"bundle": "abc", "through": "inproc", "delay_ms": 0.0}
EPISODE = {"task": "A", "seed": 10_000, "instruction": "do it", "success": True, "steps": 40}


def result(seed: int) -> EpisodeResult:
    return EpisodeResult(**EPISODE | {"seed": seed})


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_finished_episodes_are_kept_until_the_report_is_written(tmp_path) -> None:
    report = tmp_path / "deep" / "r.json"
    journal = Journal(report, SETTINGS)
    journal.add(result(10_000))
    journal.add(result(10_001))
    del journal
    again = Journal(report, SETTINGS)
    assert again.finished == [result(10_000), result(10_001)]
    again.remove()
    assert not list(report.parent.iterdir())


def test_a_half_written_line_is_dropped_and_written_over(tmp_path) -> None:
    path = tmp_path / "r.json.partial"
    path.write_bytes(lines(SETTINGS, EPISODE) + b'{"task": "TurnOnSi')
    journal = Journal(tmp_path / "r.json", SETTINGS)
    assert journal.finished == [result(10_000)]
    journal.add(result(10_001))
    del journal
    assert Journal(tmp_path / "r.json", SETTINGS).finished == [result(10_000), result(10_001)]


def test_what_is_no_regular_file_is_refused(tmp_path) -> None:
    os.mkfifo(tmp_path / "r.json.partial")
    with pytest.raises(ConfigError, match="no regular file"):
        Journal(tmp_path / "r.json", SETTINGS)


@pytest.mark.parametrize("written", [0, 1, 20])
def test_a_half_written_first_line_is_no_journal_yet(tmp_path, written: int) -> None:
    (tmp_path / "r.json.partial").write_bytes(json.dumps(SETTINGS).encode()[:written])
    Journal(tmp_path / "r.json", SETTINGS).add(result(10_000))
    assert Journal(tmp_path / "r.json", SETTINGS).finished == [result(10_000)]


def test_without_a_report_nothing_is_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, SETTINGS)
    journal.add(result(10_000))
    journal.remove()
    assert not list(tmp_path.iterdir())


def test_episodes_of_other_settings_are_not_mixed_in(tmp_path) -> None:
    Journal(tmp_path / "r.json", SETTINGS)
    with pytest.raises(ConfigError, match=r"other settings \(delay_ms 0.0, not 100.0\); delete it"):
        Journal(tmp_path / "r.json", SETTINGS | {"delay_ms": 100.0})


def test_two_evaluations_do_not_share_a_report(tmp_path) -> None:
    first = Journal(tmp_path / "r.json", SETTINGS)
    with pytest.raises(ConfigError, match="another evaluation is writing"):
        Journal(tmp_path / "r.json", SETTINGS)
    first.add(result(10_000))
    first.remove()
    assert Journal(tmp_path / "r.json", SETTINGS).finished == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x93NUMPY\x00\xff\xfe\n\n", "not readable as lines of JSON"),
        (b"my notes, without a line end", "not readable as lines of JSON"),
        (b"{}\n", "first line"),
        (b"[1, 2]\n", "first line"),
        (b"[" * 200_000 + b"\n", "not readable as lines of JSON"),
        (lines({"epoch": 3}), "first line"),
        (lines(SETTINGS, {"task": "A"}), "line 2 is no episode"),
        (lines(SETTINGS, EPISODE, 7), "line 3 is no episode"),
        (lines(SETTINGS, EPISODE | {"seed": "10000"}), "line 2 is no episode"),
        (lines(SETTINGS, EPISODE | {"success": 1}), "line 2 is no episode"),
        (lines(SETTINGS, EPISODE | {"more": 1}), "line 2 is no episode"),
        (lines(SETTINGS, EPISODE, EPISODE), "line 3 is no episode, or one that it holds already"),
        (lines(SETTINGS) + b"\n" + lines(EPISODE), "not readable as lines of JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_damaged_journal_is_one_sentence_and_stays_as_it_is(tmp_path, data, words) -> None:
    path = tmp_path / "r.json.partial"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words) as error:
        Journal(tmp_path / "r.json", SETTINGS)
    assert "delete it or choose another --json" in str(error.value)
    assert path.read_bytes() == data
