"""Entry points of the installed commands.

They import a command only when it is called: until then Ctrl-C ends the process in one sentence,
and so does a library that is missing.
"""

import os
import signal
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from z1_ros.failures import EndAtOnce, guarded

COMMANDS: dict[str, Callable[[], int]] = {}
"""What comes after ``z1-`` -> what it calls."""


def load(name: str) -> ModuleType:
    """Import the module of the command ``z1-NAME``."""
    return import_module(f"z1_ros.commands.{'import_checkpoint' if name == 'import' else name}")


def _entry(name: str) -> Callable[[], int]:
    command = f"z1-{name}"

    def entry() -> int:
        # A background job inherits that Ctrl-C is ignored, and keeps it.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, EndAtOnce(command))
        # A process of Python's own cleans up after an end at once, and would speak of it last.
        warnings = (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker")
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, warnings))
        return guarded(command, lambda: _call(command, load(name)))

    COMMANDS[name] = entry
    return entry


def _call(command: str, module: ModuleType) -> int:
    if hasattr(module, "cli"):  # its first word chooses what its flags are
        return module.cli()
    from z1_ros.command import config_of, run_command

    return run_command(command, module.main, config_of(module.main))


ablate = _entry("ablate")
bench = _entry("bench")
combine = _entry("combine")
curves = _entry("curves")
demo = _entry("demo")
demos = _entry("demos")
evaluate = _entry("eval")
export = _entry("export")
import_checkpoint = _entry("import")
run = _entry("run")
sft = _entry("sft")
teach = _entry("teach")
train = _entry("train")
