"""Long work on a thread of its own, awaited in a callback while the executor serves the others."""

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.002
"""An executor steps a waiting coroutine again and again; each step sleeps this long instead of
taking the core from inference, and delays a control tick by no more."""


class _NextStep:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def in_background(work: Callable[[], T], timeout_s: float) -> T:
    """Return what ``work`` returns, or raise what it raises.

    The callback that awaits this needs a callback group without the callbacks that shall go on.

    Args:
        work: What takes long.
        timeout_s: Longest wait [s]; what comes of the work after that is thrown away.

    Raises:
        TimeoutError: It takes longer.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # the caller's to handle, on the caller's thread
            done.set_exception(error)

    # A daemon: a load that hangs must not keep a process alive that was asked to stop.
    thread = threading.Thread(target=run, name="background", daemon=True)
    thread.start()
    deadline_s = time.monotonic() + timeout_s
    while not done.done():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not done within {timeout_s:.0f} s")
        thread.join(POLL_S)
        await _NextStep()
    return done.result()
