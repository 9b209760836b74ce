"""Processes of environments end together, and in order; one that starts slowly is not lost."""

import time
from functools import partial
from pathlib import Path

import pytest
from support.reach_env import PX, ReachEnv

from z1_ros.learning.rollout.env_pool import EnvPool, WorkerLost, WorkerProcess
from z1_ros.learning.rollout.env_worker import Begin, Reply, Request


class Noted:
    """A worker that notes when it is asked to end."""

    def __init__(self, notes: list[str]):
        self._notes = notes

    def hang_up(self):
        self._notes.append("hang up")

    def close(self):
        self._notes.append("close")


def test_all_lanes_are_asked_to_end_before_any_is_waited_for():
    notes: list[str] = []
    with EnvPool([Noted(notes) for _ in range(3)]):
        pass
    assert notes == ["hang up"] * 3 + ["close"] * 3


class Slow(ReachEnv):
    """Steps until it is told to go on; leaves a file when it is closed."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def reset(self, seed: int) -> None:
        super().reset(seed)
        (self.folder / "begun").touch()
        wait_for(self.folder / "go on")

    def close(self) -> None:
        (self.folder / "closed").touch()


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


def test_a_learner_that_leaves_while_it_is_owed_an_answer_lets_the_environment_close(tmp_path):
    worker = WorkerProcess(partial(Slow, tmp_path), 3 * PX * PX * 3, end_s=60.0)
    worker.send(Request(begin=Begin(seed=1), observe=True))
    wait_for(tmp_path / "begun")
    worker.hang_up()
    (tmp_path / "go on").touch()
    worker.close()
    assert (tmp_path / "closed").exists()


class Watched:
    """A worker that notes how long it is waited for; some answers never come."""

    def __init__(self, lost: tuple[int, ...] = ()):
        self.waits: list[float] = []
        self._lost = lost

    def send(self, request: Request) -> None:
        pass

    def receive(self, timeout_s: float) -> Reply:
        self.waits.append(timeout_s)
        if len(self.waits) in self._lost:
            raise WorkerLost(f"no answer within {timeout_s:.0f} s")
        return Reply()

    def restart(self) -> None:
        self.waits.append(0.0)

    def hang_up(self) -> None:
        pass

    close = hang_up


@pytest.mark.parametrize(
    "lost, waits",
    [((), [90, 5, 5]), ((3,), [90, 5, 5, 0, 90, 5, 5]), ((1,), [90, 0, 90, 5, 5])],
)
def test_a_new_process_has_more_time_for_its_first_answer(lost, waits):
    worker = Watched(lost)
    with EnvPool([worker], timeout_s=5, start_timeout_s=90) as pool:
        for begin in (Begin(seed=1), None, None):
            pool.send(0, Request(begin=begin))
            pool.receive(0)
    assert worker.waits == waits
