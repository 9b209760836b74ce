"""Lockstep through ROS gives, bit for bit, the trajectory of the same policy stepped in-process.

The fake policy hashes all that it sees, images included, so one changed bit anywhere changes
every later action; the simulator's snapshot holds the outcome in full precision.
"""

import base64

import pytest
from support.fakes import FakeEnv, HashPolicy, contract_of
from support.graphs import PATIENCE_S, fake_graph

from z1_ros.runtime.guard import Guard
from z1_ros.runtime.loop import StepLoop
from z1_ros.sim.episodes import run_episode
from z1_ros.specs import PANDA, PANDA_OMRON, Embodiment

HORIZON = 30
EPISODES = [("OpenDrawer", 10_000), ("OpenDrawer", 10_001), ("TurnOnMicrowave", 10_001)]


def in_process(task: str, seed: int, delay_steps: int, robot: Embodiment = PANDA) -> bytes:
    """Return the simulator's snapshot after the episode, with nothing but function calls."""
    env = FakeEnv(task, robot, horizon=HORIZON)
    policy = HashPolicy(contract_of(robot))
    loop = StepLoop(policy, robot, replan_steps=4, delay_steps=delay_steps)
    result = run_episode(env, loop, Guard(robot), seed)
    assert result.steps == HORIZON
    return env.snapshot()


@pytest.mark.parametrize("delay_steps", [0, 3])
def test_fake_episodes_are_bit_identical_in_any_order(delay_steps):
    with fake_graph(
        mode="lockstep", delay_steps=delay_steps, env={"FAKE_HORIZON": str(HORIZON)}
    ) as runner:
        for task, seed in [*EPISODES, EPISODES[0]]:
            result = runner.client.run_episode(task, seed, timeout_s=PATIENCE_S)
            snapshot = base64.b64decode(runner.client.trigger("sim_bridge_node/snapshot"))
            assert result.success
            assert snapshot == in_process(task, seed, delay_steps)


def test_the_mobile_robots_whole_observation_reaches_the_policy(tmp_path):
    """Its base's pose included: the policy hashes every field of the state."""
    robot = tmp_path / "robot.yaml"
    robot.write_text(f"/**: {{ros__parameters: {{embodiment: {PANDA_OMRON.name}}}}}")
    env = {"FAKE_HORIZON": str(HORIZON)}
    task, seed = EPISODES[0]
    with fake_graph(mode="lockstep", params_file=str(robot), env=env) as runner:
        assert runner.client.run_episode(task, seed, timeout_s=PATIENCE_S).success
        snapshot = base64.b64decode(runner.client.trigger("sim_bridge_node/snapshot"))
    assert snapshot == in_process(task, seed, 0, PANDA_OMRON)


def test_an_abandoned_episode_leaves_no_trace_in_the_next():
    """Reset in full flight: a late action or image must not enter the new episode."""
    task, seed = EPISODES[0]
    with fake_graph(mode="lockstep", env={"FAKE_HORIZON": str(HORIZON)}) as runner:
        client = runner.client
        for _ in range(8):
            client.set_parameters("sim_bridge_node", {"seed": 10_005})
            client.trigger("sim_bridge_node/reset")
        client.run_episode(task, seed, timeout_s=PATIENCE_S)
        snapshot = base64.b64decode(client.trigger("sim_bridge_node/snapshot"))
        assert snapshot == in_process(task, seed, 0)


def test_a_kitchen_episode_of_the_shipped_policy_is_bit_identical():
    """The real thing: rendered images, ONNX inference, MuJoCo physics, in other processes."""
    from z1_ros.errors import GraphicsUnavailable
    from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
    from z1_ros.graph.runner import GraphRunner
    from z1_ros.models.bundle.manifest import load_bundle
    from z1_ros.policy.backends import load_policy
    from z1_ros.sim.kitchen import KitchenEnv

    task, seed = "TurnOnMicrowave", 10_003
    bundle = load_bundle("kitchen-z1")
    policy = load_policy("kitchen-z1", threads=1)
    env = KitchenEnv(task, PANDA)
    loop = StepLoop(policy, PANDA, bundle.manifest.replan_steps)
    try:
        expected = run_episode(env, loop, Guard(PANDA), seed)
    except GraphicsUnavailable as error:
        pytest.skip(str(error))
    snapshot = env.snapshot()
    env.close()
    graph = policy_graph(PolicyGraphConfig(mode="lockstep", threads=1, task=task))
    with GraphRunner(graph) as runner:
        result = runner.client.run_episode(task, seed, timeout_s=120)
        through_ros = base64.b64decode(runner.client.trigger("sim_bridge_node/snapshot"))
    assert (result.success, result.steps) == (expected.success, expected.steps)
    assert through_ros == snapshot
