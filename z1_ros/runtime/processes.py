"""Jobs in worker processes that end on Ctrl-C and with their parent process."""

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
# Loaded here and not between fork and exec, where another thread may hold the loader's lock.
_LIBC = ctypes.CDLL(None, use_errno=True)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}


def die_with_parent() -> None:
    """Ask Linux to end this process when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def die_with_spawner() -> None:
    """As ``die_with_parent``, in a process of ``multiprocessing`` whose parent may have ended."""
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
    """Run ``run(*job)`` in ``workers`` processes; yield the results in order of completion.

    Each process calls ``start(*start_args)`` once; both are module-level functions, and all
    arguments can be pickled. Successive jobs usually run in different processes. The numerical
    libraries of each use one thread. Ctrl-C, or an error of one job, ends all workers immediately.

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
    # The pool's own loop would treat Ctrl-C as a failed job and continue with the next job.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    die_with_spawner()
    start(*args)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Context in which started processes use one library thread and do not receive Ctrl-C.

    While a process imports its libraries, Ctrl-C would end it with a traceback. The child receives
    Ctrl-C after it unblocks the signal; this process receives it when the block ends.
    """
    ensure_running()  # otherwise it would start inside the block and unblock the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment(_ONE_THREAD):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
