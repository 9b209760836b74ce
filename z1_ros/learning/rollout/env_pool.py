"""Environment workers: each a process of its own, supervised and replaced when it is lost.

A worker's environment is deterministic, so one that dies or hangs is replaced by a new process
that is brought to the same point: nothing of an iteration is lost, and its numbers stay the same.
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
from typing import Protocol

import numpy as np

from z1_ros.errors import GraphError, TrainingError, Z1Error
from z1_ros.learning.rollout.env_worker import EnvWorker, Message, Reply, Request
from z1_ros.runtime.processes import die_with_spawner, one_thread_each
from z1_ros.sim.env import Env
from z1_ros.sim.registry import EnvMaker

LOST_IN_A_ROW = 3
"""Workers that may be lost with one request before the run gives up."""

START_TIMEOUT_S = 300.0
"""Time that a new process may take for its first reply: dozens start at once, on few cores."""


class WorkerLost(Exception):
    """A worker's process died or hangs."""


class WorkerHandle(Protocol):
    """Where one environment takes requests; replies come in their order."""

    def send(self, request: Message) -> None:
        """Send a request without waiting."""
        ...

    def receive(self, timeout_s: float) -> Reply:
        """Wait for the next reply.

        Raises:
            WorkerLost: None came: the process died, or the time is over.
            Z1Error: The environment refused.
        """
        ...

    def restart(self) -> None:
        """Put a new process in the place of one that was lost."""
        ...

    def hang_up(self) -> None:
        """Ask the process to end, without waiting."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


class WorkerProcess:
    """A worker in a process of this machine; its images travel through shared memory."""

    def __init__(
        self,
        make_env: Callable[[], Env],
        image_bytes: int,
        *,
        kind: type[EnvWorker] = EnvWorker,
        guard: bool = True,
        end_s: float = 0.0,
    ):
        """Start the process.

        Args:
            make_env: Picklable; called in the process.
            image_bytes: Room for the images of one observation.
            kind: Class that handles the requests.
            guard: Put a guard before the environment; False where it brings its own.
            end_s: Time that the process has, once it is asked to end, to close its environment
                before it is killed [s].
        """
        self._make_worker = partial(kind, make_env, guard=guard)
        self._end_s = end_s
        self._asked_to_end = False
        self._memory = SharedMemory(create=True, size=image_bytes)
        self._start()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None  # it was started
        return self._process.pid

    def send(self, request: Message) -> None:
        """Send a request without waiting; ``receive`` notices a process that is gone."""
        self._outbox.put(request)

    def receive(self, timeout_s: float) -> Reply:
        """Wait for the next reply; see ``WorkerHandle``."""
        try:
            if not self._pipe.poll(timeout_s):
                raise WorkerLost(f"no reply within {timeout_s:.0f} s")
            reply, shapes = self._pipe.recv()
        except (EOFError, ConnectionResetError, OSError) as error:
            raise WorkerLost("the process is gone") from error
        if isinstance(reply, GraphError):  # the process lives, but a node of its environment died
            raise WorkerLost(str(reply)) from reply
        if isinstance(reply, Exception):
            raise reply
        if reply.observation is None:
            return reply
        images = _read_images(self._memory, shapes)
        return replace(reply, observation=replace(reply.observation, images=images))

    def restart(self) -> None:
        """Put a new process in the place of one that was lost."""
        self._end()
        self._asked_to_end = False
        self._start()

    def hang_up(self) -> None:
        """Ask the process to end, without waiting."""
        if not self._asked_to_end:
            self._asked_to_end = True
            self._outbox.put(None)
            self._kill_s = time.monotonic() + self._end_s

    def close(self) -> None:
        """End the process and free the memory."""
        self._end()
        self._memory.close()
        self._memory.unlink()

    def _start(self) -> None:
        # spawn: neither an OpenGL context nor a thread survives a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        with one_thread_each():
            self._process = context.Process(
                target=_serve,
                args=(theirs, self._make_worker, self._memory.name),
                daemon=True,
            )
            self._process.start()
        theirs.close()
        # More than a pipe holds, sent to a process that hangs, would hang the learner too.
        self._outbox: SimpleQueue[Message | None] = SimpleQueue()
        self._poster = threading.Thread(target=_post, args=(self._pipe, self._outbox), daemon=True)
        self._poster.start()

    def _end(self) -> None:
        self.hang_up()
        self._process.join(max(0.0, self._kill_s - time.monotonic()))
        self._process.kill()
        self._process.join()
        # Only now nobody writes to the pipe: its number is free for the next one.
        self._poster.join()


def _post(pipe: Connection, outbox: "SimpleQueue[Message | None]") -> None:
    """Send what is put into the outbox, then close; what is not sent ``receive`` will miss."""
    while (request := outbox.get()) is not None:
        with contextlib.suppress(OSError):
            pipe.send(request)
    pipe.close()


def _serve(pipe: Connection, make_worker: Callable[[], EnvWorker], memory_name: str) -> None:
    """Reply to requests until the other end closes: the loop of a worker's process."""
    # The learner handles Ctrl-C: it ends its workers.
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

    # The learner may close the pipe at any time, also before it has its reply.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(reply_to(pipe.recv()))
    if worker is not None:
        worker.close()
    os._exit(0)  # an OpenGL driver's own exit handlers may hang


def _with_shared_images(
    reply: Reply, memory: SharedMemory
) -> tuple[Reply, dict[str, tuple[int, ...]]]:
    """Move a reply's images to shared memory; return the rest, and the images' shapes."""
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


class EnvPool:
    """Workers by number; what is lost is replaced, and its requests are sent again."""

    def __init__(
        self,
        workers: Sequence[WorkerHandle],
        timeout_s: float = 60.0,
        start_timeout_s: float = START_TIMEOUT_S,
    ):
        """Take over workers.

        Args:
            workers: They are closed with the pool.
            timeout_s: Time that a reply may take before the worker counts as hung [s].
            start_timeout_s: The same for the first reply of a new process, which loads and
                builds its environment first [s].
        """
        self._workers = list(workers)
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._started = [False] * len(workers)
        self._since_begin: list[list[Message]] = [[] for _ in workers]
        self.replaced = 0
        """Processes that were lost and replaced."""

    def __len__(self) -> int:
        return len(self._workers)

    def send(self, worker: int, request: Message) -> None:
        """Send a worker a request without waiting; one at a time."""
        if request.begins:
            self._since_begin[worker].clear()
        self._since_begin[worker].append(request)
        self._workers[worker].send(request)

    def receive(self, worker: int) -> Reply:
        """Wait for the reply to the latest request.

        Raises:
            TrainingError: Its process was lost again and again.
            Z1Error: The environment refused.
        """
        why = ""
        for attempt in range(LOST_IN_A_ROW):
            try:
                if attempt:
                    return self._replay(worker)
                return self._reply(worker)
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

    def map(self, requests: Sequence[Message]) -> list[Reply]:
        """Spread requests over the workers; return the replies in order."""
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
        """Bring a new process to where the lost one was; return the missing reply."""
        *before, last = self._since_begin[worker]
        for request in before:
            self._workers[worker].send(request.to_replay())
            self._reply(worker)
        self._workers[worker].send(last)
        return self._reply(worker)

    def close(self) -> None:
        """End all workers at once: one after another, those that wait would take too long."""
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> "EnvPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


OpenPool = Callable[[EnvMaker, int], EnvPool]
"""Opens a pool: how to make its environments, and how many."""


def local_workers(maker: EnvMaker, count: int, kind: type[EnvWorker] = EnvWorker) -> EnvPool:
    """Return a pool of ``count`` processes of this machine, all starting at once."""
    return EnvPool([WorkerProcess(maker, maker.image_bytes, kind=kind) for _ in range(count)])
