"""The error message, one sentence, and the exit code of a command that fails.

Exit codes of every command:

- 0: done.
- 1: the command ran with a bad outcome (no episode of the demo succeeded), or it has a bug.
- 2: an error that the user can fix; the message names it.
- 130: Ctrl-C.

This module uses only the standard library, so it can report a missing library.
"""

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from z1_ros.errors import Z1Error
from z1_ros.output import forgiving_output

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
SHOW_TRACEBACK = "Z1_TRACEBACK"
"""Environment variable; if not empty, the traceback of an error is printed."""

_EXTRAS = {
    **dict.fromkeys(("torch", "safetensors", "transformers", "onnx", "onnxscript"), "train"),
    **dict.fromkeys(("matplotlib", "tensorboard"), "train"),
    "peft": "lora",
    "imageio_ffmpeg": "demo",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries report these with their own error classes: safetensors (Rust), torch, onnxruntime.
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)(?: at path \"([^\"]*)\")?")
_NO_MEMORY = ("can't allocate memory", "out of memory", "Failed to allocate memory", "bad_alloc")


class EndAtOnce:
    """A handler of Ctrl-C that prints a sentence and ends the process immediately.

    It is used while nothing has to be cleaned up: during imports (some libraries ignore
    KeyboardInterrupt), after a first Ctrl-C, and while Python shuts down.
    """

    def __init__(self, command: str):
        self._command = command

    def __call__(self, number: int, frame: object) -> None:
        """End the process."""
        cursor = "\033[?25h" if os.isatty(2) else ""  # a progress bar has hidden it
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}{self._command}: interrupted\n".encode())
        os._exit(INTERRUPTED)


def guarded(command: str, job: Callable[[], Any]) -> int:
    """Call ``job``; return its int or 0. Print an error that ends it as one sentence.

    A text that cannot be printed does not end the job; results are still written.
    """
    with forgiving_output() as output:
        try:
            code = job()
            code = code if isinstance(code, int) else DONE
        except SystemExit:
            raise
        except BaseException as error:
            code = report(command, error)
        output.flush()
        lost = output.failure
        # A reader that closes the pipe, such as `head`, does not need more output.
        if lost is not None and not isinstance(lost, BrokenPipeError):
            told = report(command, OSError(lost.errno, lost.strerror, "standard output"))
            code = code or told
    return code


def report(command: str, error: BaseException) -> int:
    """Print ``error`` as one sentence on standard error; return the exit code."""
    if os.environ.get(SHOW_TRACEBACK):
        _say("".join(traceback.format_exception(error)).rstrip())
    sentence, code = explain(error)
    _say(f"{command}: {' '.join(sentence.split())}")
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """Return the sentence and the exit code for an error that ended a command."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, Z1Error):
        return str(error), REFUSED
    known = _missing_library(error) or _system_error(error) or _memory_error(error)
    return (known, REFUSED) if known else (_bug(error), FAILED)


def _missing_library(error: BaseException) -> str | None:
    """Return a sentence on a missing library and how to install it; None for other errors."""
    if isinstance(error, ImportError) and "cannot open shared object file" in str(error):
        return f"a library of the system is missing: {error}"
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    name = error.name.split(".")[0]
    if name == "z1_ros":
        return None
    how = "install z1_ros again, which brings it"
    if name == "rclpy" or name.endswith(("_msgs", "_srvs", "_interfaces")):
        how = (
            "source a ROS 2 installation, or pip install 'ros-jazzy-rclpy[fastrtps]' "
            "ros-jazzy-common-interfaces"
        )
    elif name in _EXTRAS:
        how = f"pip install 'z1_ros[{_EXTRAS[name]}]' (`make test` does)"
    return f"{name} is not installed: {how}"


def _system_error(error: BaseException) -> str | None:
    """Return a sentence on what the operating system refused and for which file; None if other."""
    if type(error).__name__ == "SafetensorError" and (found := _RUST_OS_ERROR.search(str(error))):
        number = int(found[1])
        error = OSError(number, os.strerror(number), found[2])
    if not isinstance(error, OSError):
        return None
    reason = "the disk is full" if error.errno in _FULL else error.strerror or str(error)
    files = [name for name in (error.filename, error.filename2) if name is not None]
    names = " -> ".join(os.fsdecode(f) if isinstance(f, bytes) else str(f) for f in files)
    return f"{names}: {reason}" if names else reason or type(error).__name__


def _memory_error(error: BaseException) -> str | None:
    words = str(error)
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if known or (isinstance(error, RuntimeError) and any(text in words for text in _NO_MEMORY)):
        return f"not enough memory: {words}" if words else "not enough memory"
    return None


def _bug(error: BaseException) -> str:
    """Return a sentence on a bug: the error, the last line of z1_ros and the last line of all."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).resolve().parent.parent)
    ours = [frame for frame in frames if str(Path(frame.filename).resolve()).startswith(package)]
    last = [*ours[-1:], *frames[-1:]]
    shown = dict.fromkeys(f"{'/'.join(Path(f.filename).parts[-3:])}:{f.lineno}" for f in last)
    where = f" ({', '.join(shown)})" if shown else ""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"internal error, please report it: {words}{where}; {SHOW_TRACEBACK}=1 shows all of it"


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads it; the exit code remains
        print(text, file=sys.stderr, flush=True)  # noqa: T201
