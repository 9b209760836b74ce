"""A run's folder belongs to one process at a time."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from z1_ros.errors import ConfigError
from z1_ros.runtime.lock import LOCK_FILE, locked

HOLD = """
import subprocess, sys, time
from pathlib import Path
from z1_ros.runtime.lock import locked
sys.argv = ["/somewhere/bin/z1-train", "--out", "a b"]
with locked(Path(FOLDER)):
    child = subprocess.Popen([sys.executable, "-c", "import time; print('held', flush=True); time.sleep(60)"])
    time.sleep(60)
"""  # noqa: E501


def hold(folder: Path) -> subprocess.Popen:
    """Start a process that holds ``folder``, with a child of its own."""
    code = HOLD.replace("FOLDER", repr(str(folder)))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_second_is_refused_with_the_name_of_the_first(tmp_path: Path, end: int) -> None:
    folder = tmp_path / "run"
    process = hold(folder)
    try:
        with pytest.raises(ConfigError) as refused, locked(folder):
            raise AssertionError("two hold it")
        words = str(refused.value)
        assert f"{folder} is in use by process {process.pid} on " in words
        assert "(z1-train --out 'a b')" in words and "\n" not in words
        # The child that outlives it for a moment does not keep the folder.
        process.send_signal(end)
        process.wait()
        with locked(folder):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert list(folder.iterdir()) == []


def test_it_is_held_by_one_use_not_by_the_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), locked(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()
        with locked(tmp_path / "another"):
            pass
    with locked(tmp_path):
        pass


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_never_two_at_once(tmp_path: Path) -> None:
    """Eight processes take and leave it all the time; a counter shows whether two were inside."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from z1_ros.errors import ConfigError\n"
        "from z1_ros.runtime.lock import locked\n"
        "folder, inside = Path(sys.argv[1]), Path(sys.argv[1], 'inside')\n"
        "done, end = 0, time.monotonic() + 2\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        with locked(folder):\n"
        "            inside.touch(exist_ok=False)\n"
        "            inside.unlink()\n"
        "            done += 1\n"
        "    except ConfigError:\n"
        "        pass\n"
        "print(done)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    ended = [process.communicate(timeout=100) for process in processes]
    assert [said for _, said in ended] == [""] * 8
    assert sum(int(out) for out, _ in ended) > 8


@pytest.mark.parametrize("kind", ["fifo", "notes", "device"])
def test_what_is_not_ours_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / LOCK_FILE
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "notes":
        path.write_text("my notes")
    else:
        path.symlink_to("/dev/zero")
    before = path.lstat()
    with pytest.raises((ConfigError, OSError), match=re.escape(str(path))), locked(tmp_path):
        pass
    assert path.lstat() == before
