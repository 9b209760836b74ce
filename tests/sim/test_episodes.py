"""Episodes in this process: repeatable from their seed, ended by the environment."""

import pytest
from support.fakes import FakeEnv, HashPolicy

from z1_ros.runtime.guard import Guard, GuardConfig
from z1_ros.runtime.loop import StepLoop
from z1_ros.sim.episodes import (
    EpisodeResult,
    InprocEpisodes,
    delay_steps,
    episode_record,
    run_episode,
)
from z1_ros.specs import PANDA


def episode(seed: int, env: FakeEnv | None = None) -> EpisodeResult:
    loop = StepLoop(HashPolicy(), PANDA, replan_steps=8)
    env = env or FakeEnv(horizon=40)
    return run_episode(env, loop, Guard(PANDA, GuardConfig()), seed, trace=True)


def test_an_episode_is_a_function_of_its_seed_and_lasts_until_the_environment_is_done() -> None:
    one, again, other = episode(3), episode(3), episode(4)
    assert one == again and one.trace != other.trace
    assert one.steps == len(one.trace) == 40 and one.seed == 3 and one.success


def test_cameras_are_rendered_where_an_inference_begins_and_nowhere_else() -> None:
    env = FakeEnv(horizon=40)
    episode(3, env)
    assert env.renders == 40 // 8


def test_a_record_is_everything_but_the_trace() -> None:
    record = episode_record(episode(3))
    assert list(record) == ["task", "seed", "instruction", "success", "steps"]


@pytest.mark.parametrize(
    ("delay_ms", "steps"), [(0.0, 0), (0.1, 1), (50.0, 1), (50.1, 2), (100.0, 2)]
)
def test_a_delay_is_rounded_up_to_control_steps(delay_ms: float, steps: int) -> None:
    assert delay_steps(delay_ms, control_hz=20.0) == steps


def test_consecutive_episodes_of_a_task_share_an_environment() -> None:
    episodes = InprocEpisodes(
        "kitchen-sft", simulator="kitchen", backend="auto", threads=1, delay_ms=0.0
    )
    one = episodes.run("TurnOnSinkFaucet", 10_000)
    env = episodes._env
    assert episodes.run("TurnOnSinkFaucet", 10_000) == one and episodes._env is env
    episodes.close()
    assert episodes._env is None
