"""Jobs in worker processes: results as they come, and an end to all when one fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from z1_ros.errors import ConfigError, ProcessLost
from z1_ros.runtime.processes import one_thread_each, run_jobs


class _Here:
    factor = 0


def _start(factor: int) -> None:
    _Here.factor = factor


def _run(number: int) -> int:
    if number == 13:
        raise ConfigError("13 is refused")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return _Here.factor * number


def test_every_job_is_run_with_what_its_process_was_started_with() -> None:
    jobs = [(n,) for n in range(6)]
    assert sorted(run_jobs(2, _start, (10,), _run, jobs)) == [0, 10, 20, 30, 40, 50]


def test_an_error_of_a_job_keeps_its_words() -> None:
    with pytest.raises(ConfigError, match="13 is refused"):
        list(run_jobs(1, _start, (1,), _run, [(1,), (13,), (2,)]))


def test_a_killed_process_is_one_sentence() -> None:
    with pytest.raises(ProcessLost, match="one of 2 worker processes was killed"):
        list(run_jobs(2, _start, (1,), _run, [(1,), (99,), (2,)]))


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("LP_NUM_THREADS", raising=False)
    with one_thread_each():
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "3" and "LP_NUM_THREADS" not in os.environ


def test_ctrl_c_while_workers_import_is_no_traceback(tmp_path: Path) -> None:
    """A terminal sends it to all processes of the command."""
    (tmp_path / "slow_to_import.py").write_text(
        "import sys, time\n"
        "if '--multiprocessing-fork' in sys.orig_argv:\n"
        "    print('importing', flush=True)\n"
        "    time.sleep(60)\n"
        "def run(n): return n\n"
    )
    code = (
        "import slow_to_import\n"
        "from z1_ros.runtime.processes import run_jobs\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        list(run_jobs(1, slow_to_import.run, (0,), slow_to_import.run, [(1,)]))\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")
