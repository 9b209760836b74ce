"""Progress of a long job: bars on a terminal, periodic lines in a log."""

import time
from collections.abc import Callable, Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress:
    """Counts finished jobs of several kinds and estimates the remaining time."""

    def __init__(
        self,
        console: Console,
        totals: Mapping[str, int],
        *,
        period_s: float = 15.0,
        now_s: Callable[[], float] = time.monotonic,
    ):
        """Prepare for ``totals`` jobs of each kind; use the object as a context manager.

        If the console is not a terminal, at least ``period_s`` [s] pass between two lines.
        """
        self._console, self._totals = console, dict(totals)
        self._done = dict.fromkeys(totals, 0)
        self._period_s, self._now_s = period_s, now_s
        self._began_s = self._said_s = now_s()
        self._earlier = 0
        self._bars = Bars(
            TextColumn("{task.description:20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._ids = {
            kind: self._bars.add_task(kind, total=n, note="") for kind, n in totals.items()
        }

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def advance(self, kind: str, note: str = "", *, earlier: bool = False) -> None:
        """Count one job as done, with a note on all jobs of its kind.

        A job of an ``earlier`` run does not count in the estimate of the remaining time.
        """
        self._done[kind] += 1
        self._earlier += earlier
        self._bars.update(self._ids[kind], advance=1, note=note)
        if self._console.is_terminal or earlier:
            return
        if self._now_s() - self._said_s >= self._period_s:
            self._said_s = self._now_s()
            self._console.print(f"{self.sentence()}; {kind}: {note}" if note else self.sentence())

    def sentence(self) -> str:
        """Return e.g. ``120 of 400 done, 3 min left``."""
        done, total = sum(self._done.values()), sum(self._totals.values())
        here = done - self._earlier
        if not here or done == total:
            return f"{done} of {total} done"
        left_s = (self._now_s() - self._began_s) / here * (total - done)
        return f"{done} of {total} done, {duration(left_s)} left"


def duration(seconds: float) -> str:
    """Return a time in words, e.g. ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
