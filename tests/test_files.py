"""Files appear whole or not at all; what a killed command left is swept, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from z1_ros import files
from z1_ros.errors import CheckpointError, ConfigError
from z1_ros.files import (
    parse_json,
    read_bytes,
    read_json,
    require_writable,
    shown,
    staged_directory,
    staged_file,
    sweep,
    write_json,
    write_text,
)

PROGRAM = """
import sys, time
from pathlib import Path
from z1_ros.files import staged_directory, staged_file
place = Path(sys.argv[1])
with (staged_directory if sys.argv[2] == "directory" else staged_file)(place) as partial:
    (partial / "weights" if partial.is_dir() else partial).write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def start_writing(place: Path, kind: str) -> subprocess.Popen:
    """Start a process that stages something for ``place`` and never finishes."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(place), kind], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def older_bundle(place: Path) -> Path:
    place.mkdir()
    (place / "weights").write_text("older")
    return place


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_a_killed_command_leaves_is_swept_and_what_is_in_use_stays(tmp_path, kind) -> None:
    place = tmp_path / "out"
    process = start_writing(place, kind)
    try:
        (staging,) = names(tmp_path)
        assert staging.startswith(".out.z1-")
        sweep(tmp_path)
        assert names(tmp_path) == [staging], "its process is at work"
    finally:
        kill(process)
    assert names(tmp_path) == [staging]
    require_writable(place)
    assert names(tmp_path) == []


def test_what_a_kill_leaves_at_the_first_and_the_last_moment_is_swept_too(tmp_path) -> None:
    (tmp_path / ".a.z1-00000000").mkdir()
    (tmp_path / ".a.z1-11111111").mkdir()
    (tmp_path / ".a.z1-11111111" / files.OWNER).touch()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_folders_that_only_look_like_ours_are_left_alone(tmp_path) -> None:
    for name in ("out.older", "out.partial", ".out.z1-abcdefgh", ".export-1234"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("kept")
    (tmp_path / ".out.z1-abcdefgh" / files.OWNER).write_text("not our words")
    (tmp_path / "out.tmp").write_text("kept")
    before = names(tmp_path)
    with staged_directory(tmp_path / "out") as partial:
        (partial / "weights").write_text("new")
    write_text(tmp_path / "out" / "text", "x")
    assert names(tmp_path) == sorted([*before, "out"])
    assert all((tmp_path / name / "mine").read_text() == "kept" for name in before[:-1])


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced_in_one_step_or_not_at_all(
    tmp_path, monkeypatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    place = older_bundle(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), staged_directory(place) as partial:
        (partial / "weights").write_text("half")
        raise KeyboardInterrupt
    assert (place / "weights").read_text() == "older" and names(tmp_path) == ["out"]
    with staged_directory(place) as partial:
        (partial / "other").write_text("new")
        assert names(place) == ["weights"]
    assert names(place) == ["other"] and names(tmp_path) == ["out"]


def test_the_older_directory_is_put_back_where_a_kill_came_between_two_renames(
    tmp_path, monkeypatch
) -> None:
    place = older_bundle(tmp_path / "out")
    process = start_writing(place, "directory")
    kill(process)
    (staging,) = (path for path in tmp_path.iterdir() if path != place)
    place.rename(staging / ".z1-older")
    sweep(tmp_path)
    assert names(tmp_path) == ["out"] and (place / "weights").read_text() == "older"
    # The same in a living process whose second rename fails.
    rename = Path.rename
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)

    def fail(self, target):
        if Path(target) == place and self.name == "out":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"), staged_directory(place):
        pass
    assert names(tmp_path) == ["out"] and (place / "weights").read_text() == "older"


def test_a_link_is_followed_and_stays(tmp_path) -> None:
    older_bundle(tmp_path / "v1")
    link = tmp_path / "links" / "current"
    link.parent.mkdir()
    link.symlink_to("../v1")
    require_writable(link)
    with staged_directory(link) as partial:
        (partial / "weights").write_text("new")
    assert link.is_symlink() and (tmp_path / "v1" / "weights").read_text() == "new"
    assert names(tmp_path) == ["links", "v1"] and names(link.parent) == ["current"]
    file = tmp_path / "file.json"
    file.symlink_to("v1/weights")
    write_json(file, {"a": 1})
    assert file.is_symlink() and read_json(tmp_path / "v1" / "weights") == {"a": 1}


def test_devices_and_pipes_are_written_to_not_replaced(tmp_path) -> None:
    write_text(Path("/dev/null"), "x")
    require_writable(Path("/dev/stdout"))
    assert Path("/dev/null").is_char_device()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "said")
    assert os.read(reader, 10) == b"said" and names(tmp_path) == ["pipe"]
    os.close(reader)


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch) -> None:
    require_writable(tmp_path / "new" / "deeper" / "out")
    assert names(tmp_path) == [], "only looked"
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file is not a folder"):
        require_writable(tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match="cannot be written"):
        require_writable(Path("/proc/nowhere/out"))
    monkeypatch.setattr(files.os.path, "ismount", lambda path: path == tmp_path / "mounted")
    with pytest.raises(ConfigError, match="is a mount point; name a folder inside it"):
        require_writable(tmp_path / "mounted")


def test_an_unfinished_file_is_not_seen(tmp_path) -> None:
    path = tmp_path / "deeper" / "a.json"
    with pytest.raises(ZeroDivisionError), staged_file(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert names(path.parent) == []
    write_json(path, {"grün": [1]})
    assert read_json(path) == {"grün": [1]} and names(path.parent) == ["a.json"]


@pytest.mark.parametrize("kind", ["pipe", "zero", "folder", "large"])
def test_only_regular_files_of_a_sane_size_are_read(tmp_path, kind: str) -> None:
    path = tmp_path / "config.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as stream:
            stream.truncate(1 << 40)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="is not readable JSON") as error:
        read_json(path)
    assert time.monotonic() - started < 1 and "\n" not in str(error.value)
    with pytest.raises(OSError):
        read_bytes(path, 100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "recursion"),
        ("[" * 70 + "]" * 70, "nested more than 64"),
        ('{"a": 1, "a": 2}', "key 'a' stands twice"),
        ('{"a\\n": 1}', "is not printable"),
        ('["\\ud800"]', "surrogates"),
        ("9" * 5000, "integer string conversion"),
    ],
    ids=["open brackets", "depth", "twice", "key", "surrogate", "digits"],
)
def test_json_that_cannot_be_handled_is_an_error(text: str, words: str) -> None:
    with pytest.raises((ValueError, RecursionError), match=words):
        parse_json(text.encode())
    assert parse_json(b'{"a": [1, null]}') == {"a": [1, None]}


def test_values_are_shown_in_one_short_line() -> None:
    for value in ("a\nb", "a" * 1000, 10**6000, [1] * 1000, {"a": {}}, None, True, 1.5):
        assert "\n" not in shown(value) and len(shown(value)) < 70
    assert json.loads(shown(3)) == 3 and shown(None) == "null" and shown("x") == "'x'"
