"""Closed-loop success of a bundle, episode by episode, with intervals.

This module steps the environment in the same process; ``z1-eval`` can run the same episodes
through the ROS graph.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from z1_ros.errors import ConfigError
from z1_ros.policy.backends import load_policy
from z1_ros.policy.base import Policy
from z1_ros.runtime.guard import Guard, GuardConfig
from z1_ros.runtime.loop import StepLoop
from z1_ros.sim.env import Env
from z1_ros.sim.registry import EnvMaker
from z1_ros.specs import require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeResult:
    """Outcome of one episode."""

    task: str
    """Task name."""
    seed: int
    """Scene seed; the policy's noise uses the same number."""
    instruction: str
    """What the policy was told."""
    success: bool
    """The task's own predicate was true before the horizon."""
    steps: int
    """Control steps taken."""
    trace: tuple[bytes, ...] = ()
    """Per step: action and state bytes, if asked for; to compare paths bit for bit."""


def run_episode(
    env: Env, loop: StepLoop, guard: Guard, seed: int, *, trace: bool = False
) -> EpisodeResult:
    """Reset everything to ``seed`` and act until the episode is over."""
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
        """Load the bundle; environments are made when their task is first asked for."""
        self._policy = load_policy(bundle, backend=backend, threads=threads)
        self._simulator = simulator
        self._delay_ms = delay_ms
        self._env: Env | None = None

    def run(self, task: str, seed: int) -> EpisodeResult:
        """Run one episode; consecutive episodes of one task share an environment."""
        if self._env is None or self._env.task != task:
            self.close()
            robot = self._policy.bundle.manifest.embodiment
            self._env = EnvMaker(simulator=self._simulator, task=task, embodiment=robot)()
        replan_steps = self._policy.bundle.manifest.replan_steps
        loop, guard = make_loop(self._policy, self._env, replan_steps, self._delay_ms)
        return run_episode(self._env, loop, guard, seed)

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None


def make_loop(
    policy: Policy, env: Env, replan_steps: int, delay_ms: float
) -> tuple[StepLoop, Guard]:
    """Return the loop and guard that drive ``env`` as the node graph would."""
    steps = delay_steps(delay_ms, env.embodiment.control_hz)
    loop = StepLoop(policy, env.embodiment, replan_steps, delay_steps=steps)
    return loop, Guard(env.embodiment, GuardConfig())


def delay_steps(delay_ms: float, control_hz: float) -> int:
    """Return the control steps that a delay covers, rounded up."""
    return math.ceil(delay_ms / 1e3 * control_hz - 1e-9)


def wilson_interval(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    centre = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of ``10000:10100`` (end excluded) or ``10000,10007``, all for evaluation.

    Raises:
        ConfigError: Malformed or empty.
        SeedError: A seed below 10000, which belongs to training.
    """
    try:
        if ":" in text:
            start, end = (int(part) for part in text.split(":"))
            seeds = list(range(start, end))
        else:
            seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"seeds must look like 10000:10100 or 10000,10007, got {text!r}"
        ) from error
    if not seeds:
        raise ConfigError(f"seeds {text!r} is an empty range")
    return [require_seed(seed, "eval") for seed in seeds]


def success_table(results: Iterable[EpisodeResult]) -> dict[str, dict[str, Any]]:
    """Return per task: success count, n, 95 % interval, mean steps of all and of successes."""
    by_task: dict[str, list[EpisodeResult]] = {}
    for result in results:
        by_task.setdefault(result.task, []).append(result)
    table = {}
    for task, episodes in by_task.items():
        n, successes = len(episodes), sum(e.success for e in episodes)
        done = [e.steps for e in episodes if e.success]
        table[task] = {
            "success": successes,
            "n": n,
            "ci95": [round(x, 4) for x in wilson_interval(successes, n)],
            "mean_steps": round(float(np.mean([e.steps for e in episodes])), 1),
            "mean_success_steps": round(float(np.mean(done)), 1) if done else None,
            "instructions": sorted({e.instruction for e in episodes}),
        }
    return table


def mean_success(table: dict[str, dict[str, Any]]) -> float:
    """Return the mean over tasks of the success rate."""
    return float(np.mean([row["success"] / row["n"] for row in table.values()]))


def episode_record(result: EpisodeResult) -> dict[str, Any]:
    """Return a result as JSON-ready values, without its trace."""
    record = asdict(result)
    del record["trace"]
    return record
