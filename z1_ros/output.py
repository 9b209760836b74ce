"""Standard output that never ends a command: neither a narrow encoding nor a lost reader does.

A result matters more than the messages about it. ``z1-eval --json r.json | head -1`` still writes
``r.json``, and so does a terminal that knows ASCII alone.
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
    """Replace what an encoding cannot express by something that reads alike, or by ``?``."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in found), error.end


codecs.register_error("z1_plainly", _plainly)


class Output:
    """A text stream that forgets what it cannot write, and remembers why.

    What is written after the first failure is dropped, so that the work goes on to its result.
    """

    def __init__(self, stream: TextIO):
        """Wrap ``stream``."""
        self._stream = stream
        self.failure: OSError | None = None
        """The first failure; BrokenPipeError if the reader has gone."""

    def write(self, text: str) -> int:
        """Write ``text``, or drop it."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Hand over what is buffered."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., Any], *args: str) -> None:
        if self.failure is not None:
            return
        try:
            call(*args)
        except OSError as error:
            self.failure = error
            # What the stream still buffers would fail once more when Python ends.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_output() -> Iterator[Output]:
    """Inside, printing neither raises OSError nor UnicodeEncodeError."""
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
    """Open standard streams that the caller closed (``>&-``), to nowhere.

    Otherwise the next file that is opened gets their number, and a library's words.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
