"""Entry points of the installed commands.

They import a command only when it is called. Ctrl-C during the import, or a missing library, ends
the process with one sentence instead of a traceback.
"""

import os
import signal
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from z1_ros.failures import EndAtOnce, guarded

COMMANDS: dict[str, Callable[[], int]] = {}
"""Command name without ``z1-`` -> entry point."""


def load(name: str) -> ModuleType:
    """Import the module of the command ``z1-NAME``."""
    return import_module(f"z1_ros.commands.{'import_checkpoint' if name == 'import' else name}")


def _entry(name: str) -> Callable[[], int]:
    command = f"z1-{name}"

    def entry() -> int:
        # A background job inherits that Ctrl-C is ignored; this is not changed.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, EndAtOnce(command))
        # Python's resource tracker cleans up after an immediate end and would print a warning.
        warnings = (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker")
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, warnings))
        return guarded(command, lambda: _call(command, load(name)))

    COMMANDS[name] = entry
    return entry


def _call(command: str, module: ModuleType) -> int:
    if hasattr(module, "cli"):  # the first argument selects the subcommand and its flags
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
