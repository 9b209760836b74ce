"""Jobs in worker processes that end when they are told to, and never outlive their parent."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.resource_tracker import ensure_running
from typing import Any

from z1_ros.environ import environment
from z1_ros.errors import ProcessLost

_PR_SET_PDEATHSIG = 1
# Loaded here, not between fork and exec, where the loader's lock may be held by another thread.
_LIBC = ctypes.CDLL(None, use_errno=True)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}


def die_with_parent() -> None:
    """Ask Linux to end this process when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def die_with_spawner() -> None:
    """The same in a process that ``multiprocessing`` spawned, whose parent may be gone already."""
    die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is None or os.getppid() != parent.pid:
        os._exit(1)


def run_jobs(
    workers: int,
    start: Callable[..., object],
    start_args: tuple[Any, ...],
    run: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
) -> Iterator[Any]:
    """Yield the results of ``run(*job)`` as they come, from ``workers`` processes.

    Ctrl-C, or an error of one job, ends all workers at once.

    Args:
        workers: Processes; each has one thread for its numerical libraries.
        start: Called once in each process, with ``start_args``.
        start_args: Picklable arguments.
        run: Called in a process for each job; it and ``start`` are module-level functions.
        jobs: Arguments of each call; neighbours tend to go to different processes.

    Raises:
        ProcessLost: A process ended before its job was done.
    """
    # spawn: neither an OpenGL context nor a thread survives a fork.
    context = multiprocessing.get_context("spawn")
    with one_thread_each():
        pool = ProcessPoolExecutor(workers, context, _begin, (start, start_args))
        futures = [pool.submit(run, *job) for job in jobs]
    done = False
    try:
        for future in as_completed(futures):
            yield future.result()
        done = True
    except BrokenProcessPool as error:
        raise ProcessLost(
            f"one of {workers} worker processes was killed; if memory ran out, use fewer"
        ) from error
    finally:
        if not done:
            for child in multiprocessing.active_children():
                child.terminate()
        pool.shutdown(cancel_futures=True)


def _begin(start: Callable[..., object], args: tuple[Any, ...]) -> None:
    # The pool's own loop takes Ctrl-C for a failed job and goes on with the next.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    die_with_spawner()
    start(*args)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Start worker processes inside: their libraries use one thread and Ctrl-C does not reach them.

    While a process imports its libraries, Ctrl-C would end it with a traceback. It hears Ctrl-C
    once it unblocks the signal; we hear it when the block ends.
    """
    ensure_running()  # by itself it would start inside, and unblock the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment(_ONE_THREAD):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
