"""Registry of simulators: their tasks, robots and how to make their environments.

A simulator is imported only when an environment or an expert is made. Launch files can therefore be
loaded, and wrong tasks refused, on a machine without the simulator.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Protocol

import numpy as np

from z1_ros.errors import ConfigError, closest
from z1_ros.sim.env import Env
from z1_ros.specs import Embodiment, embodiment

DEFAULT_SIMULATOR = "kitchen"
"""Name of the default simulator of commands and nodes."""


class ScriptedExpert(Protocol):
    """A program that does a task from privileged state; its episodes are the demonstrations."""

    def act(self) -> np.ndarray:
        """Return the next action (action_dim,) for the current state of its environment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulator:
    """One simulator.

    Its module provides ``make_env(task, embodiment, image_size) -> Env``,
    ``make_expert(env) -> ScriptedExpert`` and ``instruction_patterns(task) -> tuple[str, ...]``.
    """

    name: str
    """Name for ``--robot`` and ``robot:=``."""
    label: str
    """Name in tables and titles."""
    module: str
    """Name of the module that implements the simulator; it is imported when first needed."""
    tasks: tuple[str, ...]
    """Task names, in the order in which ``all`` runs them."""
    embodiments: tuple[str, ...]
    """Robots that the simulator supports."""
    image_size: int
    """Default height and width of the camera images [px]."""

    def load(self) -> ModuleType:
        """Import and return the simulator's module."""
        return import_module(self.module)

    def make_expert(self, env: Env) -> ScriptedExpert:
        """Return the scripted expert for an environment's current scene."""
        return self.load().make_expert(env)

    def instruction_patterns(self, task: str) -> tuple[str, ...]:
        """Return the patterns that a task's instructions match in every scene."""
        return self.load().instruction_patterns(task)


SIMULATORS = {
    simulator.name: simulator
    for simulator in (
        Simulator(
            name="kitchen",
            label="embedded kitchen (not RoboCasa)",
            module="z1_ros.sim.kitchen",
            tasks=("OpenDrawer", "TurnOnSinkFaucet", "TurnOnMicrowave", "PnPCounterToSink"),
            embodiments=("panda", "panda_omron"),
            image_size=128,
        ),
    )
}
"""All simulators by name."""
PLANNED_ROBOTS = ("robocasa", "franka")
"""Names of simulators and robots that a later version will support."""


def find_simulator(name: str) -> Simulator:
    """Return the simulator with this name.

    Raises:
        ConfigError: The name is unknown; the message suggests known names.
    """
    if name not in SIMULATORS:
        raise ConfigError(f"no simulator {name!r}. {closest(name, SIMULATORS)}")
    return SIMULATORS[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvMaker:
    """Maker of one environment; it can be pickled and sent to another process."""

    simulator: str
    """Simulator name."""
    task: str
    """Task name."""
    embodiment: str
    """Robot."""
    image_size: int = 0
    """Height and width of the camera images [px]; 0: the simulator's default."""

    def __post_init__(self) -> None:
        simulator = find_simulator(self.simulator)
        parse_task(self.task, simulator.tasks)
        if self.embodiment not in simulator.embodiments:
            raise ConfigError(
                f"simulator {self.simulator!r} has no robot {self.embodiment!r}. "
                f"{closest(self.embodiment, simulator.embodiments)}"
            )

    @property
    def robot(self) -> Embodiment:
        """The robot's cameras, state and actions."""
        return embodiment(self.embodiment)

    @property
    def image_bytes(self) -> int:
        """Size of the images of one observation, for all cameras of the robot [bytes]."""
        size = self.image_size or find_simulator(self.simulator).image_size
        return len(self.robot.cameras) * 3 * size**2

    def __call__(self) -> Env:
        """Make the environment."""
        simulator = find_simulator(self.simulator)
        size = self.image_size or simulator.image_size
        return simulator.load().make_env(self.task, self.robot, size)


def parse_tasks(text: str, known: Iterable[str]) -> list[str]:
    """Parse task names such as ``all`` or ``A,B``.

    Raises:
        ConfigError: A name is unknown or repeated, or there is no name.
    """
    known = list(known)
    if text == "all":
        return known
    tasks = [task.strip() for task in text.split(",") if task.strip()]
    if not tasks:
        raise ConfigError(f"tasks {text!r} names no task. {closest('', known)}")
    for i, task in enumerate(tasks):
        parse_task(task, known)
        if task in tasks[:i]:
            raise ConfigError(f"tasks {text!r} names {task} twice")
    return tasks


def parse_task(text: str, known: Iterable[str]) -> str:
    """Parse the name of one task.

    Raises:
        ConfigError: The name is unknown, or the text has several names.
    """
    known, task = list(known), text.strip()
    if task == "all" or "," in task:
        raise ConfigError(f"task is {text!r}, expected one task. {closest('', known)}")
    if task not in known:
        raise ConfigError(f"no task {task!r}. {closest(task, known)}")
    return task
