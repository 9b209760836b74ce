"""Start, spin and stop of a node process.

rclpy's own signal handlers invalidate the context before anybody can publish a last hold, so
ours are installed instead: SIGINT and SIGTERM only ask the main loop to stop, the node then
stops the robot while it can still talk, and the exit code is 0. A later second signal forces.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Protocol, TypeVar, runtime_checkable

import rclpy
from rclpy.exceptions import InvalidParameterValueException, ROSInterruptException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from z1_ros.errors import GraphError, Z1Error
from z1_ros.runtime.claim import claim, node_claim

SAME_REQUEST_S = 1.0
"""Signals this close to the first are the same request: Ctrl-C reaches a whole process group,
and ROS 2's launch passes it on once more."""


FORCE_S = 8.0
"""Time to end after the first signal [s]; a main thread stuck in a library never sees signals."""


class StopRequest:
    """Whether somebody asked this process to end."""

    def __init__(self) -> None:
        self.requested = False
        """Set by the first SIGINT or SIGTERM, or by ``set``."""
        self.exit_code = 0
        """What the process shall return."""
        self._first_s = 0.0

    def install(self) -> None:
        """Handle SIGINT and SIGTERM from now on; call it on the main thread."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        # Written by the C handler at once, whatever the main thread is doing.
        signal.set_wakeup_fd(write)
        threading.Thread(target=_force_after_signal, args=(read,), daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def set(self, exit_code: int = 0) -> None:
        """Ask for the end from inside."""
        self.requested = True
        self.exit_code = exit_code

    def done(self) -> None:
        """Ignore signals from now on: the process is at its end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: object) -> None:
        if not self.requested:
            self._first_s = time.monotonic()
            self.set()
        elif time.monotonic() - self._first_s > SAME_REQUEST_S:
            os._exit(128 + number)


def _force_after_signal(wakeup: int) -> None:
    os.read(wakeup, 1)
    time.sleep(FORCE_S)
    os._exit(1)


@runtime_checkable
class RunnableNode(Protocol):
    """What ``run_node`` needs of a node beyond rclpy's own."""

    def run(self, stop: StopRequest) -> None:
        """Work until ``stop.requested``."""
        ...

    def safe_stop(self) -> None:
        """Leave the robot holding; the context is still valid."""
        ...


def run_node(make: Callable[[], Node], args: list[str] | None = None) -> int:
    """Make a node, run it until it ends or a signal comes, and return the exit code.

    Errors that a user can fix end as one sentence on stderr and exit code 1.
    """
    stop = StopRequest()
    stop.install()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
        assert isinstance(node, RunnableNode)
        claimed = claim_name(node)
    except (Z1Error, InvalidParameterValueException, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        rclpy.try_shutdown()
        return 1
    try:
        node.run(stop)
    except Z1Error as error:
        node.get_logger().fatal(str(error))
        stop.set(exit_code=1)
    except ROSInterruptException:
        stop.set()
    finally:
        node.safe_stop()
        claimed.close()
        node.destroy_node()
        rclpy.try_shutdown()
        stop.done()
    return stop.exit_code


def spin(node: Node, stop: StopRequest) -> None:
    """Run callbacks until asked to stop."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not stop.requested:
            executor.spin_once(timeout_sec=0.05)
    finally:
        executor.remove_node(node)
        executor.shutdown()


def claim_name(node: Node) -> socket.socket:
    """Return what keeps other processes from running a node of the same full name.

    Raises:
        GraphError: There is one: two guards on one robot would fight.
    """
    name, domain_id = node.get_fully_qualified_name(), node.context.get_domain_id()
    claimed = claim(node_claim(domain_id, name))
    if claimed is None:
        raise GraphError(
            f"another {name} is already running in ROS domain {domain_id}; stop it, or choose "
            "another domain (ROS_DOMAIN_ID) or namespace"
        )
    return claimed


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
