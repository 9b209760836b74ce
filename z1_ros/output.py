"""Standard output whose errors never end a command: a limited encoding or a closed pipe.

A result is more important than its messages. ``z1-eval --json r.json | head -1`` still writes
``r.json``; so does the command in a terminal that supports only ASCII.
"""

import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

_PLAIN = {
    "…": "...", "–": "-", "—": "-", "→": "->", "←": "<-", "±": "+/-", "×": "x", "·": "-",
    "≤": "<=", "≥": ">=", "≈": "~", "π": "pi", "µ": "u", "°": " deg", "√": "sqrt", "−": "-",
    "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*", "✓": "ok", "²": "^2", "³": "^3",
}  # fmt: skip


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by similar characters, or by ``?``."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in found), error.end


codecs.register_error("z1_plainly", _plainly)


class Output:
    """A text stream that drops text that it cannot write, and stores the error.

    All text after the first failure is dropped, so that the command can continue to its result.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.failure: OSError | None = None
        """The first error; BrokenPipeError if the reader closed the pipe."""

    def write(self, text: str) -> int:
        """Write ``text``; drop it after a failure."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer of the stream."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., Any], *args: str) -> None:
        if self.failure is not None:
            return
        try:
            call(*args)
        except OSError as error:
            self.failure = error
            # Otherwise the buffered text would fail again when Python ends.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_output() -> Iterator[Output]:
    """Context in which printing raises neither OSError nor UnicodeEncodeError."""
    _open_what_is_closed()
    before = sys.stdout, sys.stderr
    for stream in before:
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="z1_plainly")  # type: ignore[union-attr]
    out = Output(sys.stdout)
    sys.stdout, sys.stderr = out, Output(sys.stderr)  # type: ignore[assignment]
    try:
        yield out
    finally:
        out.flush()
        sys.stdout, sys.stderr = before


def _open_what_is_closed() -> None:
    """Connect standard streams that the caller closed (``>&-``) to the null device.

    Otherwise the next opened file would get their descriptor and receive printed text.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
