"""A simulator behind the graph is an Env like any other: same replies, same refusals."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from support.fakes import FakeEnv
from support.graphs import FAKES, PATIENCE_S

from z1_ros.errors import ActionError, ConfigError, GraphError, SnapshotMismatch, TrainingError
from z1_ros.graph.ros_env import RosEnv
from z1_ros.graph.runner import GraphRunner
from z1_ros.graph.train_graph import worker_graph
from z1_ros.learning.rollout.env_worker import EnvWorker, Request
from z1_ros.nodes.messages import joint_states_message
from z1_ros.sim.registry import EnvMaker
from z1_ros.specs import PANDA

IMAGE_SIZE = 128
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (40, PANDA.action_dim)).astype(np.float32)


@contextmanager
def fake_worker(**settings) -> Iterator[tuple[GraphRunner, RosEnv]]:
    """Run a worker's graph with the fake simulator."""
    commands = {"sim_bridge_node": [sys.executable, FAKES, "sim_bridge_node"]}
    maker = EnvMaker(simulator="kitchen", task="OpenDrawer", embodiment="panda")
    graph = replace(worker_graph(maker, 4), namespace="worker3")
    settings = {"cameras": PANDA.cameras} | settings
    with GraphRunner(graph, commands=commands) as runner:
        yield runner, RosEnv(runner.client, "OpenDrawer", PANDA, **settings)


def as_bytes(reply) -> list:
    """Return everything of a reply, comparable bit for bit."""
    found = [reply.step, reply.snapshot]
    if reply.observation is not None:
        seen = reply.observation
        found += [seen.stamp_ns, seen.instruction]
        for named in (seen.state, seen.images):
            found += [(name, value.tobytes()) for name, value in sorted(named.items())]
    return found


def both(worker: EnvWorker, local: EnvWorker, request: Request):
    """Send both a request; their replies are equal."""
    replies = worker.handle(request), local.handle(request)
    assert as_bytes(replies[0]) == as_bytes(replies[1])
    return replies[0]


def test_every_request_has_the_reply_that_it_has_in_process():
    with fake_worker() as (_, env):
        worker = EnvWorker(lambda: env, guard=False)
        local = EnvWorker(lambda: FakeEnv(image_size=IMAGE_SIZE))
        both(worker, local, Request(begin=3, observe=True))
        chunks = ACTIONS.reshape(10, 4, -1)
        both(worker, local, Request(actions=chunks[0]))
        early = both(
            worker, local, Request(actions=chunks[1], observe=True, snapshot=True)
        ).snapshot
        late = both(worker, local, Request(actions=chunks[2:7].reshape(20, -1), snapshot=True))
        again = Request(begin=early, actions=chunks[3], observe=True)
        both(worker, local, again)
        # Less than a chunk: the simulator renders because it is asked again.
        both(worker, local, Request(actions=chunks[4][:1], observe=True))
        both(worker, local, Request(begin=late.snapshot, actions=chunks[7]))
        reply = both(worker, local, Request(actions=chunks[8:].reshape(8, -1), observe=True))
        assert reply.step.done and reply.step.success and reply.observation is None
        with pytest.raises(ConfigError, match="no running episode"):
            env.step(chunks[0])
        assert env.horizon == 40


def test_a_snapshot_of_any_time_is_a_new_episode_to_the_guard():
    """Also one that is a second ahead, as long as the pause between two episodes."""
    with fake_worker() as (_, env):
        worker = EnvWorker(lambda: env, guard=False)
        local = EnvWorker(lambda: FakeEnv(image_size=IMAGE_SIZE))
        begin = Request(begin=3, actions=ACTIONS[:24], snapshot=True)
        later = both(worker, local, begin).snapshot
        both(worker, local, Request(begin=3, actions=np.ones_like(ACTIONS[:4])))
        both(
            worker,
            local,
            Request(begin=later, actions=-np.ones_like(ACTIONS[:4]), snapshot=True),
        )


def test_what_the_simulator_refuses_is_said_in_its_words():
    with fake_worker() as (runner, env):
        env.reset(3)
        with pytest.raises(SnapshotMismatch, match=r"refused to restore: snapshot is of fake/Turn"):
            env.restore(FakeEnv("TurnOnMicrowave").snapshot())
        env.reset(4)
        with pytest.raises(ActionError, match=r"shape is \(2, 3\), expected \(k, 7\)"):
            env.step(np.zeros((2, 3)))
        with pytest.raises(ConfigError, match="seed"):
            env.reset(-1)
        assert {name for name, _ in runner.client.node.get_topic_names_and_types()} >= {
            "/worker3/clock",
            "/worker3/action",
            "/worker3/safe_action",
        }


def test_a_stopped_robot_ends_training_because_its_holds_are_no_actions_of_the_policy():
    with fake_worker() as (runner, env):
        env.reset(3)
        button = runner.client.node.create_publisher(Bool, "estop", 1)
        runner.client.wait(button.get_subscription_count, PATIENCE_S, "the guard listens")
        button.publish(Bool(data=True))
        stopped = lambda: runner.client.status("guard_node")[1].get("stop_reason")  # noqa: E731
        runner.client.wait(stopped, PATIENCE_S, "the stop")
        with pytest.raises(TrainingError, match="stopped the robot: emergency stop pressed"):
            env.step(ACTIONS[:2])


def test_an_episode_that_somebody_else_begins_is_noticed():
    with fake_worker() as (runner, env):
        env.reset(3)
        runner.client.trigger("sim_bridge_node/reset")
        with pytest.raises(GraphError, match="begun another episode by itself"):
            env.step(ACTIONS[:2])


def test_a_policy_waits_for_its_own_cameras_and_names_the_one_that_is_silent():
    used = PANDA.cameras[1:]
    with fake_worker(cameras=used) as (runner, env):
        env.reset(3)
        assert tuple(env.observe().images) == used
        more = RosEnv(runner.client, "OpenDrawer", PANDA, cameras=(*used, "ceiling"))
        more.reset(3)
        more._reply_timeout_s = 2.0
        with pytest.raises(GraphError, match=r"waiting for camera 'ceiling' \(topic /worker3/"):
            more.observe()


def test_what_a_simulator_that_is_no_more_said_last_is_no_first_observation():
    """Its stamps may be ahead of those of the one that took its place."""
    with fake_worker() as (runner, env):
        env.reset(3)
        stale = FakeEnv().read_state().state
        ahead_ns = env._inputs.stamp_ns + 3_600_000_000_000
        joints = runner.client.node.create_publisher(JointState, "joint_states", 2)
        runner.client.wait(joints.get_subscription_count, PATIENCE_S, "the worker listens")
        joints.publish(joint_states_message(stale, PANDA, ahead_ns, ahead_ns))
        runner.client.wait(lambda: env._inputs.stamp_ns == ahead_ns, PATIENCE_S, "it is heard")
        runner.client.pause(True)  # it begins the episode, and says nothing yet
        patience_s, env._reply_timeout_s = env._reply_timeout_s, 5.0
        with pytest.raises(GraphError, match="first observation: not within"):
            env.reset(4)
        env._reply_timeout_s = patience_s
        runner.client.pause(False)
        worker = EnvWorker(lambda: env, guard=False)
        local = EnvWorker(lambda: FakeEnv(image_size=IMAGE_SIZE))
        both(worker, local, Request(begin=4, actions=ACTIONS[:4], observe=True))


def test_a_guard_that_is_started_anew_within_an_episode_is_noticed():
    """It limits the change to another last command."""
    with fake_worker() as (runner, env):
        env.reset(3)
        env.step(ACTIONS[:2])
        runner.client.check = lambda: None  # as where somebody else looks after the nodes
        runner.processes["guard_node"].kill()
        runner._spawn(next(node for node in runner.graph.nodes if node.name == "guard_node"))
        with pytest.raises(GraphError, match="guard_node was started anew within an episode"):
            env.step(ACTIONS[2:4])
        env.reset(3)
        env.step(ACTIONS[:2])
