"""Progress is seen in a log as well as on a terminal."""

import io

import pytest
from rich.console import Console

from z1_ros.progress import Progress, duration


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def test_a_log_gets_a_line_now_and_then_with_the_time_that_is_left() -> None:
    now_s = [0.0]
    log = console(terminal=False)
    with Progress(log, {"A": 4, "B": 4}, period_s=10, now_s=lambda: now_s[0]) as progress:
        for kind in "ABABABA":
            now_s[0] += 6
            progress.advance(kind, "1 succeeded")
    lines = log.file.getvalue().splitlines()
    assert lines[0] == "2 of 8 done, 36 s left; B: 1 succeeded"
    assert lines[1] == "4 of 8 done, 24 s left; B: 1 succeeded"
    assert len(lines) == 3
    assert progress.sentence() == "7 of 8 done, 6 s left"


def test_what_an_earlier_run_did_says_nothing_about_speed() -> None:
    now_s = [0.0]
    log = console(terminal=False)
    progress = Progress(log, {"A": 10}, now_s=lambda: now_s[0])
    for _ in range(5):
        progress.advance("A", earlier=True)
    assert progress.sentence() == "5 of 10 done"
    now_s[0] = 60
    progress.advance("A")
    assert progress.sentence() == "6 of 10 done, 4 min left"


def test_a_terminal_gets_bars() -> None:
    screen = console(terminal=True)
    with Progress(screen, {"OpenDrawer": 2}) as progress:
        progress.advance("OpenDrawer", "1 succeeded")
    assert "OpenDrawer" in screen.file.getvalue() and "1/2" in screen.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
