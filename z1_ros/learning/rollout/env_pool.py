"""Environment workers: each runs in its own process and is replaced if the process dies or hangs.

A worker's environment is deterministic. The new process repeats the requests since the last reset
and so reaches the same state: the iteration continues, and its results do not change.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from queue import SimpleQueue

import numpy as np

from z1_ros.errors import GraphError, TrainingError, Z1Error
from z1_ros.learning.rollout.env_worker import EnvWorker, Reply, Request
from z1_ros.runtime.processes import die_with_spawner, one_thread_each
from z1_ros.sim.env import Env
from z1_ros.sim.registry import EnvMaker

LOST_IN_A_ROW = 3
"""Number of failed attempts at one request after which the run ends with an error."""

START_TIMEOUT_S = 300.0
"""Longest time until the first reply of a new process [s]. It is long because dozens of processes
start at once on few cores."""


class WorkerLost(Exception):
    """The process of a worker died or does not reply in time."""


class WorkerProcess:
    """A worker in a process on this machine; images of its replies come through shared memory."""

    def __init__(
        self,
        make_env: Callable[[], Env],
        image_bytes: int,
        *,
        kind: type[EnvWorker] = EnvWorker,
        guard: bool = True,
        end_s: float = 0.0,
    ):
        """Start the process, in which the picklable ``make_env`` makes the environment.

        Pass ``guard`` False if the environment has its own guard. When the process is asked to end,
        it has ``end_s`` [s] to close its environment before it is killed.
        """
        self._make_worker = partial(kind, make_env, guard=guard)
        self._end_s = end_s
        self._asked_to_end = False
        self._memory = SharedMemory(create=True, size=image_bytes)
        self._start()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None  # the process was started in __init__
        return self._process.pid

    def send(self, request: Request) -> None:
        """Send a request without waiting; ``receive`` reports a process that has died."""
        self._outbox.put(request)

    def receive(self, timeout_s: float) -> Reply:
        """Wait for the next reply, in the order of the requests; raises errors of the environment.

        Raises WorkerLost if the process died or no reply arrived within ``timeout_s``.
        """
        try:
            if not self._pipe.poll(timeout_s):
                raise WorkerLost(f"no reply within {timeout_s:.0f} s")
            reply, shapes = self._pipe.recv()
        except (EOFError, ConnectionResetError, OSError) as error:
            raise WorkerLost("the process is gone") from error
        if isinstance(reply, GraphError):  # the process runs, but a node of its environment died
            raise WorkerLost(str(reply)) from reply
        if isinstance(reply, Exception):
            raise reply
        if reply.observation is None:
            return reply
        images = _read_images(self._memory, shapes)
        return replace(reply, observation=replace(reply.observation, images=images))

    def restart(self) -> None:
        """Replace a lost process by a new one."""
        self._end()
        self._asked_to_end = False
        self._start()

    def hang_up(self) -> None:
        """Ask the process to end, without waiting for it."""
        if not self._asked_to_end:
            self._asked_to_end = True
            self._outbox.put(None)
            self._kill_s = time.monotonic() + self._end_s

    def close(self) -> None:
        """End the process and free the shared memory."""
        self._end()
        self._memory.close()
        self._memory.unlink()

    def _start(self) -> None:
        # "spawn", because OpenGL contexts and threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        with one_thread_each():
            args = (theirs, self._make_worker, self._memory.name)
            self._process = context.Process(target=_serve, args=args, daemon=True)
            self._process.start()
        theirs.close()
        # A thread sends the requests: if the process hangs and the pipe is full, sending blocks.
        self._outbox: SimpleQueue[Request | None] = SimpleQueue()
        self._poster = threading.Thread(target=_post, args=(self._pipe, self._outbox), daemon=True)
        self._poster.start()

    def _end(self) -> None:
        self.hang_up()
        self._process.join(max(0.0, self._kill_s - time.monotonic()))
        self._process.kill()
        self._process.join()
        # The thread has closed the pipe when it ends; the next pipe may reuse the file descriptor.
        self._poster.join()


def _post(pipe: Connection, outbox: "SimpleQueue[Request | None]") -> None:
    """Send the requests from the outbox until it yields None, then close the pipe."""
    while (request := outbox.get()) is not None:
        with contextlib.suppress(OSError):  # ``receive`` raises WorkerLost for the missing reply
            pipe.send(request)
    pipe.close()


def _serve(pipe: Connection, make_worker: Callable[[], EnvWorker], memory_name: str) -> None:
    """Reply to requests until the other end closes the pipe: main loop of a worker's process."""
    # The learner handles Ctrl-C and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_spawner()
    memory = SharedMemory(memory_name)
    worker: EnvWorker | None = None

    def reply_to(request: Request) -> tuple[Reply | Z1Error, dict[str, tuple[int, ...]]]:
        nonlocal worker
        try:
            worker = worker or make_worker()
            return _with_shared_images(worker.handle(request), memory)
        except Z1Error as error:
            return error, {}

    # The learner may close the pipe at any time, even before it has received a reply.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(reply_to(pipe.recv()))
    if worker is not None:
        worker.close()
    os._exit(0)  # skips exit handlers: those of an OpenGL driver may hang


def _with_shared_images(
    reply: Reply, memory: SharedMemory
) -> tuple[Reply, dict[str, tuple[int, ...]]]:
    """Move a reply's images to shared memory; return the reply without them, and their shapes."""
    if reply.observation is None:
        return reply, {}
    assert memory.buf is not None
    at, shapes = 0, {}
    for name, image in reply.observation.images.items():
        if at + image.nbytes > memory.size:
            raise TrainingError(f"images need more than the {memory.size} bytes reserved for them")
        np.frombuffer(memory.buf, np.uint8, image.nbytes, at)[:] = image.reshape(-1)
        shapes[name] = image.shape
        at += image.nbytes
    return replace(reply, observation=replace(reply.observation, images={})), shapes


def _read_images(
    memory: SharedMemory, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    assert memory.buf is not None
    at, images = 0, {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        images[name] = np.frombuffer(memory.buf, np.uint8, size, at).reshape(shape).copy()
        at += size
    return images


class EnvPool(contextlib.AbstractContextManager["EnvPool"]):
    """A pool of numbered workers; it replaces lost processes and repeats their requests."""

    def __init__(
        self,
        workers: Sequence[WorkerProcess],
        timeout_s: float = 60.0,
        start_timeout_s: float = START_TIMEOUT_S,
    ):
        """Take ownership of workers, which the pool closes.

        A worker counts as lost after ``timeout_s`` [s] without a reply. A new process must build
        its environment, so its first reply may take ``start_timeout_s`` [s].
        """
        self._workers = list(workers)
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._started = [False] * len(workers)
        self._since_begin: list[list[Request]] = [[] for _ in workers]
        self.replaced = 0
        """Number of lost processes that were replaced."""

    def __len__(self) -> int:
        return len(self._workers)

    def send(self, worker: int, request: Request) -> None:
        """Send a request to a worker without waiting; each worker has at most one open request."""
        if request.begin is not None:
            self._since_begin[worker].clear()
        self._since_begin[worker].append(request)
        self._workers[worker].send(request)

    def receive(self, worker: int) -> Reply:
        """Wait for a worker's reply to its latest request; raises errors of the environment.

        Raises TrainingError if the process was lost ``LOST_IN_A_ROW`` times with this request.
        """
        why = ""
        for attempt in range(LOST_IN_A_ROW):
            try:
                return self._replay(worker) if attempt else self._reply(worker)
            except WorkerLost as error:
                self.replaced += 1
                self._started[worker] = False
                why = str(error)
                logging.getLogger(__name__).warning(
                    "environment %d: %s; a new process repeats its episode", worker, why
                )
                self._workers[worker].restart()
        raise TrainingError(
            f"environment {worker} was lost {LOST_IN_A_ROW} times with one request, last: {why}"
        )

    def map(self, requests: Sequence[Request]) -> list[Reply]:
        """Distribute requests over the workers; return the replies in the order of requests."""
        count, replies = len(self._workers), []
        for number in range(len(requests) + count):
            if number >= count and number - count < len(requests):
                replies.append(self.receive(number % count))
            if number < len(requests):
                self.send(number % count, requests[number])
        return replies

    def _reply(self, worker: int) -> Reply:
        timeout_s = self._timeout_s if self._started[worker] else self._start_timeout_s
        reply = self._workers[worker].receive(timeout_s)
        self._started[worker] = True
        return reply

    def _replay(self, worker: int) -> Reply:
        """Repeat a lost process's requests in a new process; return the missing reply."""
        *before, last = self._since_begin[worker]
        for request in before:
            self._workers[worker].send(request.to_replay())
            self._reply(worker)
        self._workers[worker].send(last)
        return self._reply(worker)

    def close(self) -> None:
        """End all workers in parallel, because waiting for each in sequence would take too long."""
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.close()

    def __exit__(self, *_: object) -> None:
        self.close()


OpenPool = Callable[[EnvMaker, int], EnvPool]
"""Function that opens a pool, given a maker of environments and the number of workers."""


def local_workers(maker: EnvMaker, count: int, kind: type[EnvWorker] = EnvWorker) -> EnvPool:
    """Return a pool of ``count`` worker processes on this machine, which start in parallel."""
    return EnvPool([WorkerProcess(maker, maker.image_bytes, kind=kind) for _ in range(count)])
