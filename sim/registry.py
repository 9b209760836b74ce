"""The simulators that plug in here: what each offers, and how to make its environments.

Nothing of a simulator is imported until an environment or an expert is made, so a graph can be
declared, and a wrong task refused, on a machine that has none installed.
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
"""The simulator that commands and nodes use unless they are told another."""


class ScriptedExpert(Protocol):
    """Reads privileged state and does the task; demonstrations are its episodes."""

    def act(self) -> np.ndarray:
        """Return the next action (action_dim,) for the present instant of its environment."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulator:
    """One simulator.

    Its module provides ``make_env(task, embodiment, image_size) -> Env``,
    ``make_expert(env) -> ScriptedExpert`` and ``instruction_patterns(task) -> tuple[str, ...]``.
    """

    name: str
    """What ``--robot`` and ``robot:=`` call it."""
    label: str
    """What tables and titles call it."""
    module: str
    """Module that implements it, imported when it is first needed."""
    tasks: tuple[str, ...]
    """Task names, in the order in which ``all`` runs them."""
    embodiments: tuple[str, ...]
    """Robots that it simulates."""
    image_size: int
    """Default side of its camera images [px]."""

    def load(self) -> ModuleType:
        """Import and return the simulator's module."""
        return import_module(self.module)

    def make_expert(self, env: Env) -> ScriptedExpert:
        """Return the scripted expert for an environment's present scene."""
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
"""Every simulator by name."""
PLANNED_ROBOTS = ("robocasa", "franka")
"""Names that a later version will know."""


def find_simulator(name: str) -> Simulator:
    """Return the simulator called ``name``; raises ConfigError listing the known ones."""
    if name not in SIMULATORS:
        raise ConfigError(f"no simulator {name!r}. {closest(name, SIMULATORS)}")
    return SIMULATORS[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvMaker:
    """Makes one environment; small enough to be sent to the process that shall own it."""

    simulator: str
    """Simulator name."""
    task: str
    """Task name."""
    embodiment: str
    """Robot."""
    image_size: int = 0
    """Side of the camera images [px]; 0 is the simulator's default."""

    def __post_init__(self) -> None:
        """Check the names; raises ConfigError."""
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
        """Size of the images of one observation, of all the robot's cameras [bytes]."""
        size = self.image_size or find_simulator(self.simulator).image_size
        return len(self.robot.cameras) * 3 * size**2

    def __call__(self) -> Env:
        """Return the environment."""
        simulator = find_simulator(self.simulator)
        size = self.image_size or simulator.image_size
        return simulator.load().make_env(self.task, self.robot, size)


def parse_tasks(text: str, known: Iterable[str]) -> list[str]:
    """Return the task names of ``all`` or ``A,B``.

    Raises:
        ConfigError: A name is unknown or given twice, or there is none.
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
    """Return the name of one task; raises ConfigError for an unknown name, or for several."""
    known, task = list(known), text.strip()
    if task == "all" or "," in task:
        raise ConfigError(f"task is {text!r}, expected one task. {closest('', known)}")
    if task not in known:
        raise ConfigError(f"no task {task!r}. {closest(task, known)}")
    return task
