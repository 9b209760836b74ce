"""Entry points of the installed commands.

They import a command only when it is called: until then Ctrl-C ends the process in one sentence,
and so does a library that is missing.
"""

import os
import signal
from collections.abc import Callable
from importlib import import_module

from z1_ros.failures import EndAtOnce, guarded

COMMANDS: dict[str, Callable[[], int]] = {}
"""What comes after ``z1-`` -> what it calls."""


def _entry(name: str, module: str) -> Callable[[], int]:
    def entry() -> int:
        # A background job inherits that Ctrl-C is ignored, and keeps it.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, EndAtOnce(name))
        # A process of Python's own cleans up after an end at once, and would speak of it last.
        warnings = (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker")
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, warnings))
        return guarded(name, lambda: import_module(f"z1_ros.commands.{module}").cli())

    COMMANDS[name.removeprefix("z1-")] = entry
    return entry


ablate = _entry("z1-ablate", "ablate")
bench = _entry("z1-bench", "bench")
combine = _entry("z1-combine", "combine")
curves = _entry("z1-curves", "curves")
demo = _entry("z1-demo", "demo")
demos = _entry("z1-demos", "demos")
evaluate = _entry("z1-eval", "eval")
export = _entry("z1-export", "export")
import_checkpoint = _entry("z1-import", "import_checkpoint")
run = _entry("z1-run", "run")
sft = _entry("z1-sft", "sft")
teach = _entry("z1-teach", "teach")
train = _entry("z1-train", "train")
