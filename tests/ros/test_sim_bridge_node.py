"""The simulator on the topics: which action it takes in lockstep; snapshots travel as text."""

import time
from itertools import pairwise

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from support.graphs import Watch, fake_graph, place, poses

from z1_ros.errors import GraphError
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.nodes.messages import action_message, to_ns
from z1_ros.specs import PANDA

BRIDGE = "sim_bridge_node"


def test_lockstep_steps_once_for_the_action_of_the_present_observation_only():
    with fake_graph(mode="lockstep", only=(BRIDGE,)) as runner:
        client = runner.client
        joints = Watch(runner, JointState, "joint_states")
        clock = Watch(runner, Clock, "/clock")
        safe = client.node.create_publisher(JointState, "safe_action", 1)
        client.wait(lambda: safe.get_subscription_count() and joints.seen, 10, "an observation")

        def steps() -> int:
            return int(client.status(BRIDGE)[1].get("steps", 0))

        def act(stamp_ns: int, dims=PANDA.action_dims) -> None:
            hold = PANDA.hold_action(None)
            safe.publish(action_message(hold, dims, stamp_ns))
            joints.collect(0.3)

        stamp_ns = to_ns(joints.seen[-1][1].header.stamp)
        act(stamp_ns - 50_000_000)
        act(stamp_ns, dims=("wrong",) * PANDA.action_dim)
        joints.collect(1.2)
        assert steps() == 0
        assert "action refused" in client.status(BRIDGE)[0] or int(
            client.status(BRIDGE)[1]["refused"]
        )
        act(stamp_ns)
        act(stamp_ns)
        joints.collect(1.2)
        assert steps() == 1
        assert to_ns(joints.seen[-1][1].header.stamp) == stamp_ns + 50_000_000
        assert to_ns(clock.seen[-1][1].clock) == stamp_ns + 50_000_000
        client.trigger(f"{BRIDGE}/reset")
        joints.collect(0.5)
        assert to_ns(joints.seen[-1][1].header.stamp) > stamp_ns + 50_000_000, "never backwards"


def test_snapshot_pause_and_restore():
    with fake_graph(mode="lockstep", start_paused=True, video_size=12) as runner:
        client = runner.client
        video = Watch(runner, Image, "camera/video/image")
        begun = client.trigger(f"{BRIDGE}/snapshot")
        video.collect(0.5)
        assert client.status(BRIDGE)[1]["steps"] == "0"
        client.pause(False)
        client.wait(lambda: client.status(BRIDGE)[1].get("done") == "true", 15, "the end")
        ended = client.trigger(f"{BRIDGE}/snapshot")
        assert (video.seen[0][1].height, video.seen[0][1].width) == (12, 16)
        client.set_parameters(BRIDGE, {"snapshot": begun, "seed": 10_007})
        client.set_parameters("policy_node", {"noise_seed": 0})
        client.trigger(f"{BRIDGE}/restore")
        done = lambda: client.status(BRIDGE)[1]  # noqa: E731
        client.wait(lambda: (done()["episode"], done()["done"]) == ("2", "true"), 15, "the end")
        assert done()["seed"] == "10000", "of the scene, not what a parameter says"
        assert client.trigger(f"{BRIDGE}/snapshot") == ended, "the same future from the same past"
        for bad, says in (
            ("", "parameter snapshot is empty"),
            ("no base64!", "parameter snapshot is not base64"),
            ("böse", "parameter snapshot is not base64"),
            ("AAAA", "JSONDecodeError"),  # whatever the simulator throws
        ):
            client.set_parameters(BRIDGE, {"snapshot": bad})
            with pytest.raises(GraphError, match=says):
                client.trigger(f"{BRIDGE}/restore")
        assert client.trigger(f"{BRIDGE}/snapshot") == ended, "it lives, and nothing has changed"


def test_realtime_repeats_with_the_next_seed():
    with fake_graph(repeat=True, env={"FAKE_HORIZON": "5"}) as runner:
        client = runner.client
        seed = lambda: int(client.status(BRIDGE)[1].get("seed", 0))  # noqa: E731
        client.wait(lambda: seed() >= 10_003, 15, "the fourth scene")


def test_a_simulator_that_is_too_slow_for_real_time_still_serves():
    env = {"FAKE_STEP_S": "0.06", "FAKE_HORIZON": "1000000"}
    with fake_graph(only=(BRIDGE,), env=env) as runner:
        client = runner.client
        late = lambda: int(client.status(BRIDGE)[1].get("steps", 0)) > 5  # noqa: E731
        client.wait(late, 10, "some steps")
        client.pause(True)
        client.wait(lambda: client.status(BRIDGE)[0] == "paused", 10, "a pause")


def test_a_new_listener_hears_the_instruction_alone_and_an_operators_words_stay():
    with fake_graph() as runner:
        client = runner.client
        told = lambda: client.status("policy_node")[1].get("instruction")  # noqa: E731
        client.wait(lambda: told() == "OpenDrawer number 1", 10, "the policy is told")
        operator = client.node.create_publisher(String, "instruction", 1)
        client.wait(lambda: operator.get_subscription_count() > 0, 5, "the policy listens")
        operator.publish(String(data=""))
        client.wait(lambda: told() == "", 5, "the operator is heard")
        bag = Watch(runner, String, "instruction")
        bag.collect(1.5)
        assert not bag.seen
        assert told() == ""


def test_a_given_instruction_is_said_instead_of_the_scenes_own():
    with fake_graph(mode="lockstep", instruction="wave: twice") as runner:
        client = runner.client
        assert client.run_episode("OpenDrawer", 10_001, timeout_s=20).instruction == "wave: twice"
        assert client.status("policy_node")[1]["instruction"] == "wave: twice"
        assert client.status(BRIDGE)[1]["instruction"] == "wave: twice"


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_an_action_that_is_not_finite_is_refused_and_nothing_moves(mode):
    with fake_graph(mode=mode, only=(BRIDGE,), env={"FAKE_HORIZON": "1000000"}) as runner:
        client, where = runner.client, poses(runner)
        joints = Watch(runner, JointState, "joint_states")
        safe = client.node.create_publisher(JointState, "safe_action", 1)
        bad = np.full(PANDA.action_dim, np.nan)

        def refused() -> bool:
            if joints.seen:
                stamp_ns = to_ns(joints.seen[-1][1].header.stamp)
                safe.publish(action_message(bad, PANDA.action_dims, stamp_ns))
            return int(client.status(BRIDGE)[1].get("refused", 0)) > 2

        client.wait(refused, 10, "it is counted")
        assert len({place(pose) for _, pose in where.seen}) == 1
        runner.check()


def test_an_action_that_waited_is_dropped():
    """The robot was busy or its publishing was held up: a second later it must not move."""
    env = {"FAKE_STEP_S": "0.8", "FAKE_HORIZON": "1000000"}
    with fake_graph(only=(BRIDGE,), env=env) as runner:
        client, where = runner.client, poses(runner)
        safe = client.node.create_publisher(JointState, "safe_action", 1)
        moves = np.zeros(PANDA.action_dim)
        moves[:3] = 0.1

        def command() -> None:
            stamp_ns = to_ns(where.seen[-1][1].header.stamp)
            safe.publish(action_message(moves, PANDA.action_dims, stamp_ns))

        def wait_for_poses(n: int) -> None:
            there = len(where.seen) + n
            client.wait(lambda: len(where.seen) >= there, 15, "the robot's pose")

        client.wait(safe.get_subscription_count, 10, "a subscriber")
        wait_for_poses(2)
        where.collect(0.2)
        command()
        wait_for_poses(3)
        assert len({place(pose) for _, pose in where.seen}) == 1
        client.wait(
            lambda: command() or len({place(pose) for _, pose in where.seen}) > 1, 10, "it moves"
        )


def test_a_status_published_while_another_tasks_scene_is_built_harms_nobody():
    env = {"FAKE_RESET_S": "1.2", "FAKE_HORIZON": "5"}
    with fake_graph(repeat=True, only=(BRIDGE,), env=env) as runner:
        client = runner.client
        shown = lambda: client.status(BRIDGE)[1]  # noqa: E731
        client.wait(lambda: int(shown().get("episode", 0)) >= 1, 15, "the first scene")
        client.set_parameters(BRIDGE, {"task": "TurnOnMicrowave"})
        client.wait(lambda: "TurnOnMicrowave" in shown()["scene_id"], 10, "the other")
        client.trigger(f"{BRIDGE}/snapshot")


def test_realtime_stamps_pass_under_sim_time_and_tell_episodes_apart():
    """A simulator is the source of time: it cannot wait for somebody's /clock."""
    with fake_graph(only=(BRIDGE,), use_sim_time=True) as runner:
        joints = Watch(runner, JointState, "joint_states")
        joints.collect(0.5)
        runner.client.trigger(f"{BRIDGE}/reset")
        joints.collect(0.5)
        stamps = [to_ns(message.header.stamp) for _, message in joints.seen]
        assert all(a < b for a, b in pairwise(stamps))
        assert abs(stamps[-1] - time.time_ns()) < 1e9
        assert len({message.header.frame_id for _, message in joints.seen}) == 2


def test_a_policy_that_comes_later_still_hears_the_instruction():
    with fake_graph(only=(BRIDGE,)) as runner:
        client = runner.client
        client.wait(lambda: client.status(BRIDGE)[1].get("episode") == "1", 10, "an episode")
        nodes = policy_graph(PolicyGraphConfig()).nodes
        runner._spawn(next(node for node in nodes if node.name == "policy_node"))
        told = lambda: client.status("policy_node")[1].get("instruction")  # noqa: E731
        client.wait(lambda: told() == "OpenDrawer number 1", 10, "it is told")
