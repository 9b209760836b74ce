"""Run a bundle in closed loop in this process, one episode at a time.

``z1-eval --through ros`` runs the same episodes through the node graph; both give identical bytes.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from z1_ros.policy.backends import load_policy
from z1_ros.runtime.guard import Guard, GuardConfig
from z1_ros.runtime.loop import StepLoop
from z1_ros.sim.env import Env
from z1_ros.sim.registry import EnvMaker


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeResult:
    """Result of one episode."""

    task: str
    """Task name."""
    seed: int
    """Scene seed; the policy's noise uses the same number."""
    instruction: str
    """Instruction of the policy."""
    success: bool
    """Whether the task's success condition was true before the horizon."""
    steps: int
    """Number of control steps."""
    trace: tuple[bytes, ...] = ()
    """Bytes of action and state of each step, if requested, to compare two runs bit for bit."""


def run_episode(
    env: Env, loop: StepLoop, guard: Guard, seed: int, *, trace: bool = False
) -> EpisodeResult:
    """Reset environment, policy and guard to ``seed`` and act until the episode is over."""
    env.reset(seed)
    loop.reset(seed)
    guard.reset()
    record: list[bytes] = []
    while True:
        observation = env.observe() if loop.needs_images else env.read_state()
        action = guard.apply(loop.act(observation))
        if trace:
            state = np.concatenate([observation.state[f.name] for f in env.embodiment.state])
            record.append(action.tobytes() + state.tobytes())
        step = env.step(action[None])
        if step.done:
            return EpisodeResult(
                task=env.task,
                seed=seed,
                instruction=env.instruction,
                success=step.success,
                steps=step.steps,
                trace=tuple(record),
            )


class InprocEpisodes:
    """Runs episodes with policy, guard and environment in this process."""

    def __init__(self, bundle: str, *, simulator: str, backend: str, threads: int, delay_ms: float):
        """Load the bundle; the environment of a task is made when it is first needed."""
        self._policy = load_policy(bundle, backend=backend, threads=threads)
        self._simulator = simulator
        self._delay_ms = delay_ms
        self._env: Env | None = None

    def run(self, task: str, seed: int) -> EpisodeResult:
        """Run one episode; consecutive episodes of one task share an environment."""
        manifest = self._policy.bundle.manifest
        if self._env is None or self._env.task != task:
            self.close()
            maker = EnvMaker(simulator=self._simulator, task=task, embodiment=manifest.embodiment)
            self._env = maker()
        # The same loop and guard as in the node graph.
        robot = self._env.embodiment
        steps = delay_steps(self._delay_ms, robot.control_hz)
        loop = StepLoop(self._policy, robot, manifest.replan_steps, delay_steps=steps)
        return run_episode(self._env, loop, Guard(robot, GuardConfig()), seed)

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None


def delay_steps(delay_ms: float, control_hz: float) -> int:
    """Return the duration of a delay in control steps, rounded up."""
    return math.ceil(delay_ms / 1e3 * control_hz - 1e-9)


def episode_record(result: EpisodeResult) -> dict[str, Any]:
    """Return a result as JSON data, without its trace."""
    record = asdict(result)
    del record["trace"]
    return record
