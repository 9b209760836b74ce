"""The step loop is deterministic; the control loop never waits."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from support.fakes import FakeEnv, HashPolicy, contract_of

from z1_ros.errors import ConfigError, ObservationError
from z1_ros.runtime.guard import Guard
from z1_ros.runtime.loop import ControlLoop, Observe, StepLoop
from z1_ros.specs import PANDA
from z1_ros.types import ActionChunk, Observation


def observation(step: int = 0) -> Observation:
    env = FakeEnv()
    return replace(env.observe(), stamp_ns=step * 50_000_000)


def seeing(step: int = 0) -> Observe:
    """Return what gives a control loop the observation of a control step."""

    def observe(*, images: bool) -> Observation:
        seen = observation(step)
        return seen if images else replace(seen, images={})

    return observe


def blind(why: str) -> Observe:
    """Return what has no observation to give."""

    def observe(*, images: bool) -> Observation:
        raise ObservationError(why)

    return observe


class CountingPolicy:
    """Action i of the chunk asked at control step s is s + i, in every dimension, over 100."""

    def __init__(self, horizon: int = 8):
        self.contract = contract_of(horizon=horizon)
        self.seeds: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.asked = 0

    def reset(self, seed: int) -> None:
        """Keep the seed."""
        self.seeds.append(seed)

    def infer(self, seen: Observation) -> ActionChunk:
        """Return once ``go`` is set."""
        self.asked += 1
        self.go.wait()
        start = seen.stamp_ns // 50_000_000
        numbers = np.arange(start, start + self.contract.horizon, dtype=np.float32) / 100
        actions = np.repeat(numbers[:, None], 7, 1)
        return ActionChunk(actions=actions, dims=self.contract.action_dims, stamp_ns=seen.stamp_ns)


def played(loop: StepLoop, steps: int, start: int = 0) -> list[int]:
    """Return which instant's action was played at each step; -1 where the loop held."""
    out = []
    for step in range(start, start + steps):
        action = loop.act(observation(step))
        out.append(-1 if loop.held else round(float(action[0]) * 100))
    return out


def test_without_delay_every_step_plays_its_own_action():
    policy = CountingPolicy()
    assert played(StepLoop(policy, PANDA, replan_steps=4), 12) == list(range(12))
    assert policy.asked == 3


def test_with_delay_the_old_chunk_goes_on_until_the_new_one_is_usable():
    """Only at the very start is there no old chunk: the robot holds, then starts at action 0."""
    loop = StepLoop(CountingPolicy(), PANDA, replan_steps=4, delay_steps=2)
    assert played(loop, 12) == [-1, -1, 0, 1, 2, 3, 6, 7, 8, 9, 10, 11]


def test_a_delay_longer_than_the_rest_of_the_chunk_makes_it_hold():
    loop = StepLoop(CountingPolicy(horizon=4), PANDA, replan_steps=4, delay_steps=3)
    assert played(loop, 12) == [-1, -1, -1, 0, 1, 2, 3, 7, -1, -1, -1, 8]


def test_images_are_wanted_exactly_when_an_inference_begins():
    env, policy = FakeEnv(), HashPolicy()
    loop = StepLoop(policy, PANDA, replan_steps=5)
    wanted = []
    for step in range(11):
        wanted.append(loop.needs_images)
        loop.act(env.observe() if loop.needs_images else env.read_state())
        assert len(policy.seen) == step // 5 + 1
    assert [step for step, yes in enumerate(wanted) if yes] == [0, 5, 10]


def test_the_models_order_of_dimensions_is_mapped_by_name():
    policy = HashPolicy(contract_of(action=PANDA.action[::-1]))
    env = FakeEnv()
    action = StepLoop(policy, PANDA, replan_steps=1).act(env.observe())
    chunk = policy.infer(env.observe())
    assert action.tolist() == [chunk.actions[0][chunk.dims.index(d)] for d in PANDA.action_dims]


def test_a_malformed_chunk_is_a_named_hold_until_the_next_planned_inference():
    policy = CountingPolicy()
    good = policy.infer
    policy.infer = lambda seen: replace(good(seen), actions=np.full((8, 7), np.nan))
    loop = StepLoop(policy, PANDA, replan_steps=4)
    assert played(loop, 3) == [-1, -1, -1]
    assert loop.queue.refused == 1
    policy.infer = good
    assert played(loop, 4, start=3) == [-1, 4, 5, 6]


def test_an_unusable_observation_raises_and_changes_nothing():
    policy = CountingPolicy()
    good = policy.infer

    def refuse(_):
        raise ObservationError("no camera 'x'")

    policy.infer = refuse
    loop = StepLoop(policy, PANDA, replan_steps=4)
    with pytest.raises(ObservationError):
        loop.act(observation(0))
    policy.infer = good
    assert played(loop, 5) == [0, 1, 2, 3, 4]


def test_an_episode_depends_on_its_seed_alone():
    def episode(loop: StepLoop, seed: int) -> bytes:
        env, guard = FakeEnv(), Guard(PANDA)
        env.reset(7)
        loop.reset(seed)
        for _ in range(30):
            seen = env.observe() if loop.needs_images else env.read_state()
            env.step(guard.apply(loop.act(seen))[None])
        return np.stack(env.executed).tobytes()

    loop = StepLoop(HashPolicy(), PANDA, replan_steps=4, delay_steps=1)
    first = episode(loop, 3)
    assert episode(loop, 4) != first
    assert episode(loop, 3) == first


@pytest.mark.parametrize("replan_steps", [0, 9])
def test_step_counts_out_of_range_are_refused(replan_steps):
    with pytest.raises(ConfigError, match="replan_steps"):
        StepLoop(CountingPolicy(horizon=8), PANDA, replan_steps)
    with pytest.raises(ConfigError, match="replan_steps"):
        ControlLoop(CountingPolicy(horizon=8), PANDA, replan_steps)


@pytest.fixture
def realtime():
    """A control loop over a policy whose inference can be held up."""
    policy = CountingPolicy(horizon=16)
    loop = ControlLoop(policy, PANDA, replan_steps=8)
    yield policy, loop
    policy.go.set()
    loop.close()


def inferred(loop: ControlLoop) -> None:
    """Let the worker finish the inference under way; the next tick takes in its action chunk."""
    while loop._worker._results.empty():
        time.sleep(0.001)


def asked(policy: CountingPolicy, number: int) -> None:
    """Let the worker begin the given number of inferences."""
    while policy.asked < number:
        time.sleep(0.001)
    assert policy.asked == number


def test_a_tick_never_waits_for_the_policy(realtime):
    """Whose inference does not end at all here."""
    policy, loop = realtime
    policy.go.clear()
    ticks = [loop.tick(seeing(step)) for step in range(20)]
    assert {t.held for t in ticks} == {"waiting for the policy's first action chunk"}
    assert policy.asked <= 1


def test_the_first_chunk_starts_at_action_zero_after_however_many_holds(realtime):
    policy, loop = realtime
    policy.go.clear()
    for _ in range(10):
        loop.tick(seeing(0))
    policy.go.set()
    inferred(loop)
    assert [round(100 * float(loop.tick(seeing(0)).action[0])) for _ in range(3)] == [0, 1, 2]
    assert loop.latency.count == 0, "the cold first inference is no latency"


def test_actions_consumed_while_thinking_are_skipped(realtime):
    policy, loop = realtime
    loop.tick(seeing(0))
    inferred(loop)
    for step in range(8):
        loop.tick(seeing(step))
    policy.go.clear()
    loop.tick(seeing(8))  # begins the second inference, plays action 8
    asked(policy, 2)
    assert round(100 * float(loop.tick(seeing(9)).action[0])) == 9
    policy.go.set()
    inferred(loop)
    tick = loop.tick(seeing(10))
    assert round(100 * float(tick.action[0])) == 10
    assert tick.stamp_ns == 8 * 50_000_000, "it stems from the observation at step 8"
    assert loop.latency.count == 1


def test_a_chunk_from_before_a_reset_is_discarded(realtime):
    policy, loop = realtime
    policy.go.clear()
    loop.tick(seeing(50))
    asked(policy, 1)
    loop.reset(9)
    policy.go.set()
    inferred(loop)
    assert loop.tick(seeing(0)).held
    inferred(loop)
    assert loop.tick(seeing(0)).action[0] == 0
    assert loop.counts["discarded"] == 1
    assert policy.seeds == [9]


def test_stale_inputs_are_a_named_hold_and_forget_the_plan(realtime):
    _, loop = realtime
    loop.tick(seeing(0))
    inferred(loop)
    assert not loop.tick(seeing(0)).held
    tick = loop.tick(blind("camera 'x' is 0.4 s old"))
    assert tick.held == "camera 'x' is 0.4 s old"
    assert len(loop.queue) == 0


def test_images_are_asked_for_only_at_a_tick_that_begins_an_inference(realtime):
    """They cost more than all else that a tick does."""
    policy, loop = realtime
    wanted = []

    def observe(*, images: bool) -> Observation:
        wanted.append(images)
        return seeing(len(wanted))(images=images)

    loop.tick(observe)
    assert wanted == [False, True]
    inferred(loop)
    for _ in range(8):
        loop.tick(observe)
    assert wanted == [False, True, *[False] * 8]
    loop.tick(observe)
    asked(policy, 2)
    assert wanted[10:] == [False, True]


def test_an_image_that_cannot_be_used_is_a_named_hold(realtime):
    policy, loop = realtime

    def observe(*, images: bool) -> Observation:
        if images:
            raise ObservationError("camera 'x' sends 3 bytes")
        return seeing()(images=False)

    tick = loop.tick(observe)
    assert (tick.held, tick.stamp_ns, policy.asked) == ("camera 'x' sends 3 bytes", None, 0)


def test_actions_from_too_old_an_observation_expire():
    policy = CountingPolicy()
    loop = ControlLoop(policy, PANDA, replan_steps=8, max_chunk_age_s=1.0)
    loop.tick(seeing(0))
    inferred(loop)
    tick = loop.tick(seeing(21))
    loop.close()
    assert "older than 1.0 s" in tick.held
    assert loop.counts["expired"] == 1


def test_whatever_the_policy_throws_is_a_named_hold_and_the_worker_lives_on(realtime):
    policy, loop = realtime
    good = policy.infer

    def broken(_):
        raise RuntimeError("out of memory")

    policy.infer = broken
    loop.tick(seeing(0))
    inferred(loop)
    policy.infer = good
    assert "out of memory" in loop.tick(seeing(0)).held
    inferred(loop)
    assert not loop.tick(seeing(0)).held
    assert loop.counts["failed"] == 1


def test_a_queue_that_would_run_dry_is_refilled_early(realtime):
    """Replanning after 8 of 16, 12 ticks of inference: the second plan begins before action 8."""
    policy, loop = realtime
    loop._delays.append(12)
    loop.tick(seeing(0))
    inferred(loop)
    for step in range(5):
        loop.tick(seeing(step))
    asked(policy, 2)
    assert loop.queue.consumed < 8
