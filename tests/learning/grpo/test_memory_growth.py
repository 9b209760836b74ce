"""Many iterations of z1-train need no more memory than a few."""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
TRAIN = "from z1_ros.commands.entry import train; raise SystemExit(train())"
# A learning rate next to nothing: the last iteration has as much to do as the first.
FLAGS = """--bundle kitchen-sft --task OpenDrawer --minutes 0 --iterations 30 --groups 2
--group-size 4 --max-chunks 12 --workers 2 --eval-every 10 --eval-episodes 2
--learning-rate 1e-9 --no-export"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thirty_iterations_need_no_more_memory_than_ten(tmp_path: Path) -> None:
    """After a warm-up of ten: allocators fill their pools once."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", TRAIN, *FLAGS.split(), "--out", str(out)]
    learner, workers = [], []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            # What starting takes is no growth: the log has a line for each finished iteration.
            if any(tmp_path.glob("*/log.jsonl")):
                learner.append(resident_mib(process.pid))
                workers.append(sum(resident_mib(child) for child in descendants(process.pid)))
    assert process.returncode == 0
    for samples, bound_mib in ((learner, 30), (workers, 10)):
        tenths = by_tenths(samples)
        assert max(tenths[6:]) - max(tenths[3:6]) < bound_mib, tenths


def test_memory_is_read_for_a_process_and_for_those_that_it_started() -> None:
    code = "import time; held = bytearray(2**26); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert resident_mib(process.pid) > 64
        assert process.pid in set(descendants(os.getpid()))
    finally:
        process.kill()
        process.wait()
    assert resident_mib(process.pid) == 0
    assert by_tenths([float(i // 3) for i in range(30)]) == [float(i) for i in range(10)]


def resident_mib(pid: int) -> float:
    """Return a process's resident memory; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MIB
    except (OSError, IndexError):
        return 0.0


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, and theirs."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from descendants(child)


def by_tenths(samples: list[float]) -> list[float]:
    """Return the median of each tenth of the samples."""
    assert len(samples) >= 10, "it ended before its memory could be read ten times"
    edges = [len(samples) * i // 10 for i in range(11)]
    return [statistics.median(samples[a:b]) for a, b in pairwise(edges)]
