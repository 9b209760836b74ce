"""Long work on a thread of its own, awaited in a callback while the executor serves the others."""

import threading
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


async def in_background(work: Callable[[], T]) -> T:
    """Return what ``work`` returns, or raise what it raises.

    The callback that awaits this needs a callback group without the callbacks that shall go on.
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
    while not done.done():
        thread.join(POLL_S)
        await _NextStep()
    return done.result()
