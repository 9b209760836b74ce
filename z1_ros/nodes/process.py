"""Start, spin and stop of a node process.

The signal handlers of rclpy invalidate the context before a node can publish a last hold.
Therefore z1_ros installs its own handlers: SIGINT and SIGTERM ask the main loop to stop, the node
then stops the robot while it can still publish, and the exit code is 0. A second, later signal ends
the process immediately.
"""

import contextlib
import faulthandler
import os
import select
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

LAUNCHER = "Z1_LAUNCHER"
"""Environment variable with the process id of a launcher: the node ends, with a hold, when that
process ends, however it does."""

SAME_REQUEST_S = 1.0
"""Time after the first signal in which further signals count as the same request [s]: Ctrl-C
reaches a whole process group, and ROS 2 launch forwards it once more."""


FORCE_S = 5.0
"""Longest time from the first signal to the end of the process [s]. A library that blocks, e.g. DDS
while it is torn down, must not keep a node alive; ``GraphRunner`` kills after 6 s."""


class StopRequest:
    """Records whether this process was asked to end."""

    def __init__(self) -> None:
        self.requested = False
        """Set by the first SIGINT or SIGTERM, or by ``set``."""
        self.exit_code = 0
        """Exit code of the process."""
        self._first_s = 0.0

    def install(self) -> None:
        """Handle SIGINT and SIGTERM from now on; call it on the main thread."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        # The C handler writes here immediately, even if the main thread is blocked.
        signal.set_wakeup_fd(write)
        threading.Thread(target=_force_after_signal, args=(read,), daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def set(self, exit_code: int = 0) -> None:
        """Ask the process to end, without a signal."""
        self.requested = True
        self.exit_code = exit_code

    def done(self) -> None:
        """Ignore signals from now on, because the process is ending."""
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
    # A C thread prints where each thread is and ends the process with code 1, even if a library
    # blocks while it holds the interpreter's lock.
    faulthandler.dump_traceback_later(FORCE_S, exit=True, file=2)


def end_with_launcher() -> None:
    """Send this process SIGTERM when the process that ``LAUNCHER`` names ends, or has ended."""
    if not (pid := os.environ.get(LAUNCHER, "")).isdecimal():
        return

    def follow() -> None:
        with contextlib.suppress(ProcessLookupError):
            select.select([os.pidfd_open(int(pid))], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


@runtime_checkable
class RunnableNode(Protocol):
    """Methods that ``run_node`` needs in addition to those of an rclpy node."""

    def run(self, stop: StopRequest) -> None:
        """Run until ``stop.requested`` is set."""
        ...

    def safe_stop(self) -> None:
        """Make the robot hold; called while the context is still valid."""
        ...


def run_node(make: Callable[[], Node], args: list[str] | None = None) -> int:
    """Make a node, run it until it ends or a signal arrives, and return the exit code.

    For an error that a user can fix, one sentence is printed on stderr and the exit code is 1.
    """
    stop = StopRequest()
    stop.install()
    end_with_launcher()
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
    """Reserve the node's full name, so that no other process can run a node of that name.

    Returns:
        Socket that keeps the name reserved until it is closed.

    Raises:
        GraphError: Another process runs such a node, e.g. a second guard on the same robot.
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
"""Sleep in each step of a waiting coroutine [s]. The executor steps it repeatedly; without the
sleep it would occupy a CPU core. A control tick is delayed by at most this time."""


class _NextStep:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def in_background(work: Callable[[], T], timeout_s: float) -> T:
    """Run ``work`` on a separate thread; return its result or raise its error.

    The callback that awaits this function blocks its callback group. Callbacks that must continue
    need another group.

    Args:
        work: Function that takes long.
        timeout_s: Longest wait [s]; a later result is dropped.

    Raises:
        TimeoutError: ``work`` takes longer.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # the caller handles it on its own thread
            done.set_exception(error)

    # A daemon thread: hung work must not keep a stopping process alive.
    thread = threading.Thread(target=run, name="background", daemon=True)
    thread.start()
    deadline_s = time.monotonic() + timeout_s
    while not done.done():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not done within {timeout_s:.0f} s")
        thread.join(POLL_S)
        await _NextStep()
    return done.result()
