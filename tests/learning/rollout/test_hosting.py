"""An environment's worker in another engine's hands: an actor that is called and answers later."""

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from copy import deepcopy

import pytest
import torch
from support.reach_env import PX, ReachEnv
from support.tiny_bundle import TINY, write_tiny_bundle

from z1_ros.learning.rollout.collector import Collector, GroupJob
from z1_ros.learning.rollout.env_pool import EnvPool, WorkerLost, local_workers
from z1_ros.learning.rollout.env_worker import EnvWorker
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.bundle.manifest import WEIGHTS
from z1_ros.models.checkpoint.loading import load_network
from z1_ros.specs import PANDA

IMAGE_BYTES = 3 * PX * PX * 3


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
        self._answers = []
        self.restart()

    def send(self, request):
        self._answers.append(self.handle.call("handle", request))

    def receive(self, timeout_s):
        try:
            return self._answers.pop(0).result(timeout_s)
        except (Gone, NotYet) as error:
            raise WorkerLost("the actor is gone") from error

    def restart(self):
        self._answers.clear()
        self.handle = Handle(EnvWorker, self._make_env)

    def hang_up(self):
        self.handle.kill()

    def close(self):
        pass


@pytest.fixture(scope="module")
def roll_out(tmp_path_factory):
    """Return what rolls out three groups on a pool, down to the bytes of images and actions."""
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    network = load_network(bundle.file(WEIGHTS), TINY).eval().requires_grad_(False)

    def run(pool, sharing):
        plan = plan_group(4, sharing, 3)
        collector = Collector(pool, Sampler(network, bundle, PANDA, 0), 4, trace=True)
        groups = collector.run(
            [GroupJob((7, i), plan, 100 + i) for i in range(3)], FlowSde(steps=3)
        )
        return [[(r.trace, r.success) for r in group.segments] for group in groups], groups

    return run


@pytest.mark.parametrize("sharing", ["none", "prefix", "tree"])
def test_actors_of_another_engine_give_the_numbers_of_local_processes(roll_out, sharing):
    with local_workers(ReachEnv, 4, IMAGE_BYTES) as pool:
        local, ours = roll_out(pool, sharing)
    with EnvPool([ActorWorker(ReachEnv) for _ in range(4)]) as pool:
        hosted, theirs = roll_out(pool, sharing)
    assert local == hosted and any(trace for group in hosted for trace, _ in group)
    for one, two in zip(ours, theirs, strict=True):
        for a, b in zip(one.segments, two.segments, strict=True):
            for x, y in zip(a.executed, b.executed, strict=True):
                assert torch.equal(x.chunk.log_probs, y.chunk.log_probs)


def test_an_actor_that_is_lost_is_replaced_and_nothing_changes(roll_out):
    with EnvPool([ActorWorker(ReachEnv) for _ in range(2)]) as pool:
        wanted, _ = roll_out(pool, "prefix")
    workers = [ActorWorker(ReachEnv) for _ in range(2)]
    with EnvPool(workers) as pool:
        send, sent = workers[1].send, []

        def strike(request):
            sent.append(request)
            workers[1].handle.dead |= len(sent) == 5
            send(request)

        workers[1].send = strike
        found, _ = roll_out(pool, "prefix")
        assert found == wanted and pool.replaced == 1
