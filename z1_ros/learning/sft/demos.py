"""``z1-demos``: demonstrations by scripted experts.

Each worker process owns one environment. Some episodes are disturbed by short bursts of noise, so
that the data show how to recover (the idea of DART, Laskey et al. 2017): the disturbed action is
executed, and the expert's own action is the label. Images are stored at the model's size. Each
episode has one ``.npz`` file (arrays) and one ``.json`` file (its outcome, written last), without
pickled data. A stopped collection can therefore continue.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from z1_ros.errors import ConfigError
from z1_ros.files import staged_file, sweep, write_json
from z1_ros.models.bundle.manifest import ImageSpec
from z1_ros.policy.transforms import resize_with_pad
from z1_ros.progress import Progress
from z1_ros.runtime.lock import locked
from z1_ros.runtime.processes import run_jobs
from z1_ros.sim.env import Env
from z1_ros.sim.registry import (
    DEFAULT_SIMULATOR,
    EnvMaker,
    ScriptedExpert,
    find_simulator,
    parse_tasks,
)
from z1_ros.specs import Embodiment, embodiment, require_seed

OUTCOME = ("task", "seed", "instruction", "scene_id", "success", "steps", "frames")
"""Keys of every outcome."""
FORMAT = "z1_ros.demos/1"
HEADER = "demos.json"
BLOCK = 64
"""Number of scenes of one task that are collected in sequence."""
BURST_STD = {"end_effector_position": 0.5, "end_effector_rotation": 0.12}
"""Standard deviation of a burst per action field, in that field's unit."""
BURST_EVERY = 25
"""Mean number of control steps between two bursts."""
BURST_STEPS = (2, 7)
"""Range of the length of a burst (end excluded) [control steps]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemosConfig:
    """Collect demonstrations by scripted experts."""

    out: Path = Path("runs/demos")
    """Folder to write to; finished episodes in it are kept and missing ones are added."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    tasks: str = "all"
    """``all``, or task names separated by commas."""
    episodes: int = 100
    """Scene seeds per task; failed episodes are counted, not replaced."""
    seed_start: int = 0
    """First scene seed; all seeds must be below 10000."""
    embodiment: str = "panda"
    """Robot."""
    image_size: int = 96
    """Height and width of the stored images [px]."""
    frame_stride: int = 2
    """Number of control steps between two stored images."""
    noisy: float = 0.6
    """Fraction of episodes that are disturbed by bursts of noise, to show how to recover."""
    workers: int = 0
    """Number of processes; 0: one per CPU core."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.frame_stride < 1 or self.workers < 0:
            raise ConfigError("episodes and frame_stride must be at least 1, workers at least 0")
        if not 0 <= self.noisy <= 1:
            raise ConfigError(f"noisy is {self.noisy}, expected a fraction from 0 to 1")
        require_seed(self.seed_start, "train")
        require_seed(self.seed_start + self.episodes - 1, "train")


class Bursts:
    """Short random disturbances of an expert's actions; they depend only on (task, seed)."""

    def __init__(self, robot: Embodiment, task: str, seed: int, noisy: float):
        key = np.array([seed, zlib.crc32(task.encode())], np.uint64)
        self._random = np.random.Generator(np.random.Philox(key=key))
        self._active = self._random.random() < noisy
        self._std = np.array([BURST_STD.get(f.name, 0.0) for f in robot.action for _ in f.dims])
        self._low, self._high = robot.action_limits()
        self._left = 0
        self._push = np.zeros_like(self._std)

    def disturb(self, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the action to execute (action_dim,) and whether it was disturbed."""
        if not self._active:
            return action, False
        if self._left == 0 and self._random.random() < 1 / BURST_EVERY:
            self._left = int(self._random.integers(*BURST_STEPS))
            self._push = self._random.normal(0, self._std)
        if self._left == 0:
            return action, False
        self._left -= 1
        return np.clip(action + self._push, self._low, self._high).astype(np.float32), True


def collect_episode(
    env: Env, expert: ScriptedExpert, seed: int, config: DemosConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one episode; the environment must just have been reset.

    Returns:
        Arrays: images (F, cameras, size, size, 3) uint8, state (F, state size) float32,
        frame_steps (F,) int32, actions (T, action_dim) float32 (the expert's own), disturbed
        (T,) bool; and the outcome.
    """
    spec = ImageSpec(size=config.image_size)
    bursts = Bursts(env.embodiment, env.task, seed, config.noisy)
    actions: list[np.ndarray] = []
    images, states, frames, disturbed = [], [], [], []
    done = False
    while not done:
        if len(actions) % config.frame_stride == 0:
            seen = env.observe()
            images.append(
                [resize_with_pad(seen.images[c], spec, c) for c in env.embodiment.cameras]
            )
            states.append(np.concatenate([seen.state[f.name] for f in env.embodiment.state]))
            frames.append(len(actions))
        action = np.asarray(expert.act(), np.float32)
        executed, pushed = bursts.disturb(action)
        step = env.step(executed[None])
        actions.append(action)
        disturbed.append(pushed)
        done = step.done
    arrays = {
        "images": np.asarray(images, np.uint8),
        "state": np.asarray(states, np.float32),
        "frame_steps": np.asarray(frames, np.int32),
        "actions": np.asarray(actions, np.float32),
        "disturbed": np.asarray(disturbed, bool),
    }
    outcome = {
        "task": env.task,
        "seed": seed,
        "instruction": env.instruction,
        "scene_id": env.scene_id,
        "success": bool(step.success),
        "steps": len(actions),
        "frames": len(frames),
        "disturbed_steps": int(np.sum(disturbed)),
    }
    return arrays, outcome


def main(config: DemosConfig) -> dict[str, dict[str, int]]:
    """Collect the missing episodes; return the numbers of episodes and successes per task."""
    with locked(config.out):
        tasks = parse_tasks(config.tasks, find_simulator(config.robot).tasks)
        _write_header(config)
        for task in tasks:
            sweep(config.out / task)
        seeds = range(config.seed_start, config.seed_start + config.episodes)
        # Tasks alternate in blocks: a collection that stops early has episodes of all tasks, and a
        # worker rarely has to build another environment.
        jobs = sorted(product(tasks, seeds), key=lambda job: (job[1] // BLOCK, job))
        missing = [job for job in jobs if not _outcome_path(config.out, *job).exists()]
        console = Console(soft_wrap=True)
        console.print(
            f"z1-demos: {len(missing)} of {len(jobs)} episodes to collect in {config.out}"
        )
        with Progress(console, dict.fromkeys(tasks, config.episodes)) as progress:
            for task, _ in set(jobs) - set(missing):
                progress.advance(task, earlier=True)
            for outcome in _run(config, missing):
                progress.advance(outcome["task"])
        table = summary(config.out, tasks)
        won = sum(row["successes"] for row in table.values())
        console.print(f"{won} of {len(jobs)} episodes succeeded and are demonstrations")
        return table


def summary(directory: Path, tasks: list[str]) -> dict[str, dict[str, int]]:
    """Return the number of episodes and successes per task, and frames and steps of successes."""
    table = {}
    for task in tasks:
        outcomes = read_outcomes(directory, task)
        won = [o for o in outcomes if o["success"]]
        table[task] = {
            "episodes": len(outcomes),
            "successes": len(won),
            "frames": sum(o["frames"] for o in won),
            "steps": sum(o["steps"] for o in won),
        }
    return table


def read_header(directory: Path) -> dict[str, Any]:
    """Return the header of a folder of demonstrations; raises ConfigError if it is unreadable."""
    try:
        header = json.loads((directory / HEADER).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory} holds no demonstrations: no readable {HEADER}") from error
    if header.get("format") != FORMAT:
        raise ConfigError(f"{directory / HEADER} is not of format {FORMAT!r}")
    return header


def read_outcomes(directory: Path, task: str) -> list[dict[str, Any]]:
    """Return a task's outcomes in order of seeds; raises ConfigError if a file is damaged."""
    outcomes = []
    for path in sorted((directory / task).glob("*.json")):
        try:
            outcome = json.loads(path.read_text("utf-8"))
            missing = [name for name in OUTCOME if name not in outcome]
            if missing:
                raise ValueError(f"no {missing[0]!r}")
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} is damaged, remove it to collect it again: {error}"
            ) from error
        outcomes.append(outcome)
    return outcomes


def digest(directory: Path, tasks: list[str]) -> str:
    """Return a hash of the outcomes of the tasks: scenes, steps and successes."""
    names = ("task", "seed", "scene_id", "steps", "success")
    outcomes = [[o[name] for name in names] for t in tasks for o in read_outcomes(directory, t)]
    return hashlib.sha256(json.dumps(outcomes).encode()).hexdigest()


def read_episode(
    directory: Path, task: str, seed: int, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the named arrays of a successful episode, in the format of ``collect_episode``.

    Raises ConfigError if the file is missing or damaged or has a number that is not finite.
    """
    path = _outcome_path(directory, task, seed).with_suffix(".npz")
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is missing or damaged: {error}") from error
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            step = np.argwhere(~np.isfinite(array))[0]
            raise ConfigError(
                f"{path}: {name} holds {array[tuple(step)]} in row {step[0]}, column {step[-1]}; "
                "remove the episode's two files"
            )
    return arrays


def _write_header(config: DemosConfig) -> None:
    robot = embodiment(config.embodiment)
    header = {
        "format": FORMAT,
        "embodiment": robot.name,
        "image_size": config.image_size,
        "resize": ImageSpec().resize,
        "frame_stride": config.frame_stride,
        "noisy": config.noisy,
        "cameras": list(robot.cameras),
        "state": [asdict(field) | {"dims": list(field.dims)} for field in robot.state],
        "action": [asdict(field) | {"dims": list(field.dims)} for field in robot.action],
        "control_hz": robot.control_hz,
    }
    if (config.out / HEADER).exists():
        present = read_header(config.out)
        for name, value in header.items():
            if present.get(name) != value:
                raise ConfigError(
                    f"{config.out} holds demonstrations with {name} {present.get(name)}, not "
                    f"{value}; choose another folder"
                )
    write_json(config.out / HEADER, header)


def _outcome_path(directory: Path, task: str, seed: int) -> Path:
    return directory / task / f"{seed:05d}.json"


def _run(config: DemosConfig, jobs: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Return outcomes when episodes end; with one worker, episodes run in this process."""
    workers = min(config.workers or os.cpu_count() or 1, max(1, len(jobs)))
    if workers > 1:
        return run_jobs(workers, _collector, (config,), partial(_run_in_worker, config), jobs)
    collector = Collector(config)
    return (collector.run(*job) for job in jobs)


class Collector:
    """Collects episodes in sequence; it reuses the environment and its OpenGL context."""

    def __init__(
        self,
        config: DemosConfig,
        make_env: Callable[[], Env] | None = None,
        expert_of: Callable[[Env], ScriptedExpert] | None = None,
    ):
        self._config = config
        self._make_env = make_env
        self._expert_of = expert_of or find_simulator(config.robot).make_expert
        self._env: Env | None = None

    def run(self, task: str, seed: int) -> dict[str, Any]:
        """Run and store one episode; return its outcome."""
        require_seed(seed, "train")
        if self._env is None or self._env.task != task:
            if self._env is not None:
                self._env.close()
            name, robot = self._config.robot, self._config.embodiment
            make_env = self._make_env or EnvMaker(simulator=name, task=task, embodiment=robot)
            self._env = make_env()
        env = self._env
        env.reset(seed)
        arrays, outcome = collect_episode(env, self._expert_of(env), seed, self._config)
        path = _outcome_path(self._config.out, task, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        if outcome["success"]:
            with staged_file(path.with_suffix(".npz")) as partial:
                np.savez(partial, **arrays)
        write_json(path, outcome)
        return outcome


@cache
def _collector(config: DemosConfig) -> Collector:
    """Return the collector of a worker process."""
    cv2.setNumThreads(1)
    return Collector(config)


def _run_in_worker(config: DemosConfig, task: str, seed: int) -> dict[str, Any]:
    return _collector(config).run(task, seed)
