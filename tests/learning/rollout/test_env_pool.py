"""Environment workers side by side: how they start, end and are replaced, wherever they are."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
from support.inline_worker import inline_pool
from support.reach_env import PX, ReachEnv
from support.recorder import Recorder

from z1_ros.errors import SnapshotMismatch
from z1_ros.learning.rollout.collector import Collector, GroupJob, sampling
from z1_ros.learning.rollout.env_pool import EnvPool, WorkerLost, WorkerProcess, local_workers
from z1_ros.learning.rollout.env_worker import EnvWorker, Reply, Request
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group


class Noted:
    """A worker that notes when it is asked to end."""

    def __init__(self, notes: list[str]):
        self._notes = notes

    def hang_up(self):
        self._notes.append("hang up")

    def close(self):
        self._notes.append("close")


def test_all_workers_are_asked_to_end_before_any_is_waited_for():
    notes: list[str] = []
    with EnvPool([Noted(notes) for _ in range(3)]):
        pass
    assert notes == ["hang up"] * 3 + ["close"] * 3


class Slow(ReachEnv):
    """Waits until a file lets it go on; leaves a file when it is closed."""

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


def test_a_learner_that_leaves_while_it_is_owed_a_reply_lets_the_environment_close(tmp_path):
    worker = WorkerProcess(partial(Slow, tmp_path), ReachEnv.image_bytes, end_s=60.0)
    worker.send(Request(begin=1, observe=True))
    wait_for(tmp_path / "begun")
    worker.hang_up()
    (tmp_path / "go on").touch()
    worker.close()
    assert (tmp_path / "closed").exists()


class Watched:
    """A worker that notes how long it is waited for; some replies never come."""

    def __init__(self, lost: tuple[int, ...] = ()):
        self.waits: list[float] = []
        self._lost = lost

    def send(self, request: Request) -> None:
        pass

    def receive(self, timeout_s: float) -> Reply:
        self.waits.append(timeout_s)
        if len(self.waits) in self._lost:
            raise WorkerLost(f"no reply within {timeout_s:.0f} s")
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
def test_a_new_process_has_more_time_for_its_first_reply(lost, waits):
    worker = Watched(lost)
    with EnvPool([worker], timeout_s=5, start_timeout_s=90) as pool:
        for begin in (1, None, None):
            pool.send(0, Request(begin=begin))
            pool.receive(0)
    assert worker.waits == waits


def test_what_an_environment_refuses_reaches_the_learner():
    with EnvPool([WorkerProcess(ReachEnv, ReachEnv.image_bytes)]) as pool:
        pool.send(0, Request(begin=b"nonsense"))
        with pytest.raises(SnapshotMismatch):
            pool.receive(0)
        pool.send(0, Request(begin=1, observe=True))
        assert pool.receive(0).observation.images["robot0_eye_in_hand"].shape == (PX, PX, 3)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_requests_are_spread_over_the_workers_and_replies_come_in_order(count):
    requests = [Request(begin=seed, observe=True) for seed in range(5)]
    pool = inline_pool(count)
    found = [reply.observation.state for reply in pool.map(requests)]
    for seed, state in enumerate(found):
        env = ReachEnv()
        env.reset(seed)
        wanted = env.read_state().state
        assert all((state[name] == wanted[name]).all() for name in wanted)
    assert pool.map([]) == []


# In another engine's hands: an actor that is called and replies later


class Gone(Exception):
    """What the engine raises for a call to an actor that is no more."""


class Handle:
    """An actor elsewhere, as Ray or the like hands it out: calls give futures, data is copied."""

    def __init__(self, actor_class, *args):
        self._mailbox = ThreadPoolExecutor(1)
        self._actor = self._mailbox.submit(actor_class, *args)
        self.dead = False

    def call(self, method: str, argument) -> Future:
        return self._mailbox.submit(self._run, method, deepcopy(argument))

    def _run(self, method: str, argument):
        if self.dead:
            raise Gone
        return deepcopy(getattr(self._actor.result(), method)(argument))

    def kill(self):
        self.dead = True
        self._mailbox.shutdown(wait=False)


class ActorWorker:
    """All that an engine adds: where the worker is called, and what counts as lost."""

    def __init__(self, make_env):
        self._make_env = make_env
        self._replies = []
        self.restart()

    def send(self, request):
        self._replies.append(self.handle.call("handle", request))

    def receive(self, timeout_s):
        try:
            return self._replies.pop(0).result(timeout_s)
        except (Gone, NotYet) as error:
            raise WorkerLost("the actor is gone") from error

    def restart(self):
        self._replies.clear()
        self.handle = Handle(EnvWorker, self._make_env)

    def hang_up(self):
        self.handle.kill()

    def close(self):
        pass


def rolled_out(pool, sampler, sharing):
    """Return every byte of three groups."""
    recorder, plan = Recorder(), plan_group(4, sharing, 3)
    jobs = [GroupJob((7, i), plan, 100 + i) for i in range(3)]
    Collector(pool).run(jobs, sampling(sampler, FlowSde(steps=3)), note=recorder.note)
    return recorder.moves


@pytest.mark.parametrize("sharing", ["none", "prefix", "tree"])
def test_actors_of_another_engine_give_the_numbers_of_local_processes(tiny_sampler, sharing):
    with local_workers(ReachEnv, 4) as pool:
        local = rolled_out(pool, tiny_sampler, sharing)
    with EnvPool([ActorWorker(ReachEnv) for _ in range(4)]) as pool:
        assert rolled_out(pool, tiny_sampler, sharing) == local


def test_an_actor_that_is_lost_is_replaced_and_nothing_changes(tiny_sampler):
    with EnvPool([ActorWorker(ReachEnv) for _ in range(2)]) as pool:
        wanted = rolled_out(pool, tiny_sampler, "prefix")
    workers = [ActorWorker(ReachEnv) for _ in range(2)]
    with EnvPool(workers) as pool:
        send, sent = workers[1].send, []

        def strike(request):
            sent.append(request)
            workers[1].handle.dead |= len(sent) == 5
            send(request)

        workers[1].send = strike
        assert rolled_out(pool, tiny_sampler, "prefix") == wanted
        assert pool.replaced == 1
