"""Names of tasks, and the flags that choose among them; reading them loads no simulator."""

from collections.abc import Iterable

from z1_ros.errors import ConfigError, closest

KITCHEN_TASKS = ("OpenDrawer", "TurnOnSinkFaucet", "TurnOnMicrowave", "PnPCounterToSink")
"""Tasks of the embedded kitchen: the keys of ``z1_ros.sim.kitchen.TASKS``."""


def parse_tasks(text: str, known: Iterable[str]) -> list[str]:
    """Return the task names of ``all`` or ``A,B``; raises ConfigError for an unknown name."""
    known = list(known)
    if text == "all":
        return known
    tasks = [task.strip() for task in text.split(",") if task.strip()]
    if not tasks:
        raise ConfigError(f"tasks {text!r} names no task. {closest('', known)}")
    return [parse_task(task, known) for task in tasks]


def parse_task(text: str, known: Iterable[str]) -> str:
    """Return the name of one task; raises ConfigError for an unknown name, or for several."""
    known, task = list(known), text.strip()
    if task == "all" or "," in task:
        raise ConfigError(f"task is {text!r}, expected one task. {closest('', known)}")
    if task not in known:
        raise ConfigError(f"no task {task!r}. {closest(task, known)}")
    return task
