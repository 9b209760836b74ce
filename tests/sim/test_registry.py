"""The registry of simulators: names are checked without any of them installed."""

import fnmatch
import pickle
import subprocess
import sys

import pytest

from z1_ros.errors import ConfigError
from z1_ros.sim.registry import (
    DEFAULT_SIMULATOR,
    SIMULATORS,
    EnvMaker,
    find_simulator,
    parse_task,
    parse_tasks,
)
from z1_ros.specs import EMBODIMENTS

KNOWN = ["OpenDrawer", "TurnOnMicrowave"]


def maker(**changed) -> EnvMaker:
    simulator = find_simulator(DEFAULT_SIMULATOR)
    given = {
        "simulator": simulator.name,
        "task": simulator.tasks[0],
        "embodiment": simulator.embodiments[0],
    }
    return EnvMaker(**(given | changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"simulator": "kitchn"}, "no simulator 'kitchn'.*Did you mean 'kitchen'"),
        ({"task": "OpenDrawr"}, "no task 'OpenDrawr'.*Did you mean 'OpenDrawer'"),
        ({"task": "all"}, "expected one task"),
        ({"embodiment": "franka"}, "simulator 'kitchen' has no robot 'franka'.*Known: panda"),
    ],
    ids=str,
)
def test_unknown_names_say_what_there_is(changed, words) -> None:
    with pytest.raises(ConfigError, match=words):
        maker(**changed)


def test_a_maker_travels_to_another_process_and_knows_its_robot() -> None:
    made = pickle.loads(pickle.dumps(maker(image_size=32)))
    assert made == maker(image_size=32)
    assert made.robot is EMBODIMENTS[made.embodiment]


def test_image_bytes_are_those_of_one_observation() -> None:
    small, default = maker(image_size=32), maker()
    env = small()
    env.reset(0)
    assert small.image_bytes == sum(image.nbytes for image in env.observe().images.values())
    env.close()
    size = find_simulator(DEFAULT_SIMULATOR).image_size
    assert default.image_bytes == small.image_bytes * size**2 // 32**2


def test_names_are_checked_where_no_simulator_is_installed() -> None:
    code = (
        "import sys\n"
        "sys.modules['mujoco'] = None\n"
        "from z1_ros.sim.registry import SIMULATORS, EnvMaker\n"
        "for s in SIMULATORS.values():\n"
        "    for task in s.tasks:\n"
        "        EnvMaker(simulator=s.name, task=task, embodiment=s.embodiments[0]).image_bytes\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=lambda simulator: simulator.name)
def test_what_is_declared_is_what_the_simulator_has(simulator) -> None:
    assert tuple(simulator.load().TASKS) == simulator.tasks
    assert simulator.embodiments and set(simulator.embodiments) <= set(EMBODIMENTS)


@pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=lambda simulator: simulator.name)
def test_instructions_match_the_patterns_of_their_task_and_of_no_other(simulator) -> None:
    patterns = {task: simulator.instruction_patterns(task) for task in simulator.tasks}
    for task in simulator.tasks:
        env = maker(simulator=simulator.name, task=task)()
        for seed in (0, 1, 2, 10_000):
            env.reset(seed)
            found = {
                name
                for name, known in patterns.items()
                if any(fnmatch.fnmatchcase(env.instruction, pattern) for pattern in known)
            }
            assert found == {task}, env.instruction
        env.close()


def test_the_expert_belongs_to_the_environments_scene() -> None:
    made = maker(image_size=32)
    env = made()
    env.reset(0)
    expert = find_simulator(made.simulator).make_expert(env)
    assert expert.act().shape == (made.robot.action_dim,)
    env.close()


def test_tasks_are_names_or_all() -> None:
    assert parse_tasks("all", KNOWN) == KNOWN
    assert parse_tasks("TurnOnMicrowave, OpenDrawer", KNOWN) == KNOWN[::-1]
    for text, words in (
        ("OpenDrawr", "Did you mean 'OpenDrawer'"),
        (",", "names no task"),
        ("OpenDrawer,OpenDrawer", "names OpenDrawer twice"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_tasks(text, KNOWN)


@pytest.mark.parametrize("several", ["all", "OpenDrawer,TurnOnMicrowave", ","])
def test_one_task_is_one_name(several) -> None:
    assert parse_task(" OpenDrawer ", KNOWN) == "OpenDrawer"
    with pytest.raises(ConfigError, match="Did you mean 'OpenDrawer'"):
        parse_task("OpenDrawr", KNOWN)
    with pytest.raises(ConfigError, match=f"task is '{several}', expected one task. Known: Open"):
        parse_task(several, KNOWN)
