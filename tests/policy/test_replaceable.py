"""A policy can be exchanged under a loop, and each chunk is one policy's."""

import threading

from support.fakes import FakeEnv, HashPolicy, contract_of

from z1_ros.policy.replaceable import ReplaceablePolicy
from z1_ros.runtime.loop import ControlLoop, StepLoop
from z1_ros.specs import PANDA


class Constant(HashPolicy):
    """Every action is one number."""

    def __init__(self, value):
        super().__init__()
        self.value = value
        self.go = threading.Event()
        self.go.set()
        self.asked = threading.Event()

    def infer(self, observation):
        self.asked.set()
        self.go.wait()
        chunk = super().infer(observation)
        chunk.actions[:] = self.value
        return chunk


def test_the_successor_has_the_seed_of_the_latest_reset():
    one, two = HashPolicy(), HashPolicy()
    policy = ReplaceablePolicy(one)
    policy.reset(7)
    policy.replace(two)
    assert two.seed == 7 and policy.contract == contract_of()
    policy.reset(8)
    assert (one.seed, two.seed) == (7, 8)


def test_an_exchange_within_an_episode_holds_until_the_next_inference_that_was_planned():
    env, policy = FakeEnv(), ReplaceablePolicy(Constant(0.25))
    loop = StepLoop(policy, PANDA, replan_steps=4)
    loop.reset(0)
    taken, held = [], []
    for step in range(8):
        if step == 2:
            policy.replace(Constant(0.5))
            loop.clear()
        taken.append(float(loop.act(env.observe())[0]))
        held.append(bool(loop.held))
    assert taken == [0.25, 0.25, 0, 0, 0.5, 0.5, 0.5, 0.5]
    assert held == [False, False, True, True, False, False, False, False]


def test_the_gripper_keeps_its_last_command_over_an_exchange():
    env, policy = FakeEnv(), ReplaceablePolicy(Constant(0.25))
    loop = StepLoop(policy, PANDA, replan_steps=4)
    loop.reset(0)
    loop.act(env.observe())
    policy.replace(Constant(0.5))
    loop.clear()
    assert loop.act(env.observe())[-1] == 0.25


def test_a_chunk_of_the_old_policy_that_comes_after_the_exchange_is_dropped():
    old, new = Constant(0.25), Constant(0.5)
    old.go.clear()
    env, policy = FakeEnv(), ReplaceablePolicy(old)
    loop = ControlLoop(policy, PANDA, replan_steps=4)
    loop.reset(0)
    loop.tick(lambda images: env.observe())
    assert old.asked.wait(10)
    policy.replace(new)
    loop.clear()
    old.go.set()
    taken = []
    while not (taken and taken[-1].held == ""):
        taken.append(loop.tick(lambda images: env.observe()))
    loop.close()
    assert taken[-1].action[0] == 0.5
    assert all(tick.action[0] == 0 for tick in taken[:-1])
    assert loop.counts["discarded"] == 1
