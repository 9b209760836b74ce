"""The simulator on the topics: which action it takes in lockstep; snapshots travel as text."""

import time
from itertools import pairwise

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from support.graphs import PATIENCE_S, Watch, fake_graph, place, poses

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
        joints.wait(lambda: safe.get_subscription_count() and joints.seen, "an observation")
        count = lambda name: int(client.status(BRIDGE)[1].get(name, 0))  # noqa: E731

        def act(stamp_ns: int, dims=PANDA.action_dims) -> None:
            hold = PANDA.hold_action(None)
            safe.publish(action_message(hold, dims, stamp_ns))

        stamp_ns = to_ns(joints.seen[-1].header.stamp)
        act(stamp_ns - 50_000_000)
        joints.collect(0.3)
        # Its refusal is counted after all that came before has been dealt with.
        joints.wait(
            lambda: count("refused") or act(stamp_ns, ("wrong",) * PANDA.action_dim), "a refusal"
        )
        assert count("steps") == 0
        act(stamp_ns)
        joints.wait(lambda: count("steps") == 1, "a step")
        joints.after(stamp_ns, n=1)
        act(stamp_ns)
        joints.collect(1.2)
        assert count("steps") == 1
        next_ns = stamp_ns + 50_000_000
        assert to_ns(joints.seen[-1].header.stamp) == to_ns(clock.seen[-1].clock) == next_ns
        client.trigger(f"{BRIDGE}/reset")
        joints.after(next_ns, n=1)
        stamps = [to_ns(message.header.stamp) for message in joints.seen]
        assert stamps == sorted(stamps), "never backwards"


def test_snapshot_pause_and_restore():
    with fake_graph(mode="lockstep", start_paused=True, video_size=12) as runner:
        client = runner.client
        video = Watch(runner, Image, "camera/video/image")
        begun = client.trigger(f"{BRIDGE}/snapshot")
        video.collect(0.5)
        assert client.status(BRIDGE)[1]["steps"] == "0"
        client.pause(False)
        client.wait(lambda: client.status(BRIDGE)[1].get("done") == "true", PATIENCE_S, "the end")
        ended = client.trigger(f"{BRIDGE}/snapshot")
        video.wait(lambda: video.seen, "a frame")
        assert (video.seen[0].height, video.seen[0].width) == (12, 16)
        client.set_parameters(BRIDGE, {"snapshot": begun, "seed": 10_007})
        client.set_parameters("policy_node", {"noise_seed": 0})
        client.trigger(f"{BRIDGE}/restore")
        done = lambda: client.status(BRIDGE)[1]  # noqa: E731
        client.wait(
            lambda: (done()["episode"], done()["done"]) == ("2", "true"), PATIENCE_S, "the end"
        )
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
        client.wait(lambda: seed() >= 10_003, PATIENCE_S, "the fourth scene")


def test_a_simulator_that_is_too_slow_for_real_time_still_serves():
    env = {"FAKE_STEP_S": "0.06", "FAKE_HORIZON": "1000000"}
    with fake_graph(only=(BRIDGE,), env=env) as runner:
        client = runner.client
        late = lambda: int(client.status(BRIDGE)[1].get("steps", 0)) > 5  # noqa: E731
        client.wait(late, PATIENCE_S, "some steps")
        client.pause(True)
        client.wait(lambda: client.status(BRIDGE)[0] == "paused", PATIENCE_S, "a pause")


def test_a_new_listener_hears_the_instruction_alone_and_an_operators_words_stay():
    with fake_graph() as runner:
        client = runner.client
        told = lambda: client.status("policy_node")[1].get("instruction")  # noqa: E731
        client.wait(lambda: told() == "OpenDrawer number 1", PATIENCE_S, "the policy is told")
        operator = client.node.create_publisher(String, "instruction", 1)
        client.wait(lambda: operator.get_subscription_count() > 0, PATIENCE_S, "the policy listens")
        operator.publish(String(data=""))
        client.wait(lambda: told() == "", PATIENCE_S, "the operator is heard")
        bag = Watch(runner, String, "instruction")
        bag.collect(1.5)
        assert not bag.seen
        assert told() == ""


def test_a_given_instruction_is_said_instead_of_the_scenes_own():
    with fake_graph(mode="lockstep", instruction="wave: twice") as runner:
        client = runner.client
        assert (
            client.run_episode("OpenDrawer", 10_001, timeout_s=PATIENCE_S).instruction
            == "wave: twice"
        )
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
                stamp_ns = to_ns(joints.seen[-1].header.stamp)
                safe.publish(action_message(bad, PANDA.action_dims, stamp_ns))
            return int(client.status(BRIDGE)[1].get("refused", 0)) > 2

        client.wait(refused, PATIENCE_S, "it is counted")
        assert len({place(pose) for pose in where.seen}) == 1
        runner.check()


def test_an_action_that_waited_is_dropped():
    """The robot was busy or its publishing was held up: a second later it must not move."""
    step_s = 2.0
    env = {"FAKE_STEP_S": str(step_s), "FAKE_HORIZON": "1000000"}
    with fake_graph(only=(BRIDGE,), env=env) as runner:
        client, where = runner.client, poses(runner)
        safe = client.node.create_publisher(JointState, "safe_action", 1)
        moves = np.zeros(PANDA.action_dim)
        moves[:3] = 0.1

        def command() -> None:
            stamp_ns = to_ns(where.seen[-1].header.stamp)
            safe.publish(action_message(moves, PANDA.action_dims, stamp_ns))

        def a_step_has_just_begun() -> bool:
            return where.seen and time.time_ns() - to_ns(where.seen[-1].header.stamp) < 5e8

        where.wait(safe.get_subscription_count, "a subscriber")
        where.wait(a_step_has_just_begun, "the robot's pose")
        command()
        where.after(time.time_ns() + round(step_s * 1e9), n=1)
        assert len({place(pose) for pose in where.seen}) == 1
        where.wait(lambda: command() or len({place(p) for p in where.seen}) > 1, "it moves")


def test_a_status_published_while_another_tasks_scene_is_built_harms_nobody():
    env = {"FAKE_RESET_S": "1.2", "FAKE_HORIZON": "5"}
    with fake_graph(repeat=True, only=(BRIDGE,), env=env) as runner:
        client = runner.client
        shown = lambda: client.status(BRIDGE)[1]  # noqa: E731
        client.wait(lambda: int(shown().get("episode", 0)) >= 1, PATIENCE_S, "the first scene")
        client.set_parameters(BRIDGE, {"task": "TurnOnMicrowave"})
        client.wait(lambda: "TurnOnMicrowave" in shown()["scene_id"], PATIENCE_S, "the other")
        client.trigger(f"{BRIDGE}/snapshot")


def test_realtime_stamps_pass_under_sim_time_and_tell_episodes_apart():
    """A simulator is the source of time: it cannot wait for somebody's /clock."""
    with fake_graph(only=(BRIDGE,), use_sim_time=True) as runner:
        joints = Watch(runner, JointState, "joint_states")
        joints.more(3)
        before_ns = time.time_ns()
        runner.client.trigger(f"{BRIDGE}/reset")
        joints.after(before_ns, n=10)
        stamps = [to_ns(message.header.stamp) for message in joints.seen]
        assert all(a < b for a, b in pairwise(stamps))
        assert before_ns < stamps[-1] <= time.time_ns()
        assert len({message.header.frame_id for message in joints.seen}) == 2


def test_a_policy_that_comes_later_still_hears_the_instruction():
    with fake_graph(only=(BRIDGE,)) as runner:
        client = runner.client
        client.wait(
            lambda: client.status(BRIDGE)[1].get("episode") == "1", PATIENCE_S, "an episode"
        )
        nodes = policy_graph(PolicyGraphConfig()).nodes
        runner._spawn(next(node for node in nodes if node.name == "policy_node"))
        told = lambda: client.status("policy_node")[1].get("instruction")  # noqa: E731
        client.wait(lambda: told() == "OpenDrawer number 1", PATIENCE_S, "it is told")
