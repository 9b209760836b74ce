"""Whatever dies or hangs, the robot holds within 0.3 s; and a hold has a name."""

import signal
import time
from itertools import pairwise

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image
from support.fakes import FakeEnv
from support.graphs import Watch, actions, fake_graph, is_hold, moving, place, poses

from z1_ros.nodes.messages import image_message, to_ns

LONG = {"FAKE_HORIZON": "1000000"}
LIMIT_S = 0.3


def still_since(watch: Watch, moment: float) -> float:
    """Return how long after ``moment`` (wall time) the robot moved for the last time [s].

    By stamps: whoever publishes to a process stopped at a bad moment waits for it up to 2 s.
    """
    pairs = pairwise(pose for _, pose in watch.seen)
    moved = [to_ns(b.header.stamp) / 1e9 for a, b in pairs if place(a) != place(b)]
    return max([0.0, *(stamp - moment for stamp in moved)])


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
@pytest.mark.parametrize("name", ["policy_node", "guard_node"])
def test_the_robot_holds_when_a_process_is(end, name):
    with fake_graph(env=LONG) as runner:
        moving(actions(runner))
        where = poses(runner)
        where.collect(0.5)
        assert still_since(where, 0) > 0, "it moves before"
        runner.client.check = lambda: None
        moment, moment_wall = time.monotonic(), time.time()
        runner.processes[name].send_signal(end)
        where.collect(1.2)
        where.wait(lambda: len(where.since(moment + LIMIT_S)) > 10, 5, "the robot itself lives on")
        assert still_since(where, moment_wall) < LIMIT_S
        if name == "policy_node":
            assert runner.client.status("guard_node")[0].startswith("holding: no action for")
        runner.processes[name].send_signal(signal.SIGCONT)


def test_watchdogs_bark_under_sim_time_without_a_clock():
    """``use_sim_time`` with no /clock pins ROS time at 0: steady timers must not care."""
    with fake_graph(env=LONG, use_sim_time=True) as runner:
        safe = actions(runner)
        moving(safe)
        runner.client.check = lambda: None
        moment = time.monotonic()
        runner.processes["policy_node"].kill()
        safe.collect(1.0)
        late = safe.since(moment + LIMIT_S)
        assert len(late) > 5
        assert all(is_hold(action) for action in late)


def test_stale_and_malformed_cameras_are_named_holds_and_recover():
    """The graph's own simulator is stopped; the test plays the robot."""
    with fake_graph(env=LONG) as runner:
        policy_says = lambda: runner.client.status("policy_node")[0]  # noqa: E731
        moving(actions(runner))
        runner.client.check = lambda: None
        bridge = runner.processes["sim_bridge_node"]
        bridge.send_signal(signal.SIGSTOP)
        watch = actions(runner, "action")
        watch.wait(lambda: " s old, at most" in policy_says(), 5, "a stale input is named")
        moment = time.monotonic()
        watch.collect(0.3)
        watch.wait(lambda: len(watch.since(moment)) > 3, 5, "it goes on saying hold")
        assert all(is_hold(action) for action in watch.since(moment))
        bridge.send_signal(signal.SIGCONT)
        watch.wait(lambda: policy_says() == "acting", 5, "it recovers")

        camera = "robot0_eye_in_hand"
        publisher = runner.client.node.create_publisher(Image, f"camera/{camera}/image", 2)

        def send_bad() -> bool:
            now_ns = runner.client.node.get_clock().now().nanoseconds
            message = image_message(FakeEnv().render(camera, 16), camera, now_ns)
            message.encoding = "bayer_rggb8"
            publisher.publish(message)
            return "'bayer_rggb8'" in policy_says()

        watch.wait(send_bad, 5, "a wrong encoding is named")
        assert f"camera {camera!r}" in policy_says()


def test_a_silent_camera_in_lockstep_is_named_and_nothing_moves():
    """Physics waits for the policy, the policy for the camera: it must say so."""
    with fake_graph(mode="lockstep", only=("guard_node", "policy_node")) as runner:
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String

        from z1_ros.nodes.messages import EEF_POSE, joint_states_message, pose_message
        from z1_ros.specs import PANDA

        client, state = runner.client, FakeEnv().read_state().state
        joints = client.node.create_publisher(JointState, "joint_states", 2)
        pose = client.node.create_publisher(PoseStamped, "eef_pose", 2)
        words = client.node.create_publisher(String, "instruction", 2)
        watch = actions(runner, "action")
        client.wait(lambda: joints.get_subscription_count() > 0, 10, "the policy listens")

        def named() -> bool:
            return "camera 'robot0_agentview_left'" in client.status("policy_node")[0]

        words.publish(String(data="open the drawer"))
        joints.publish(joint_states_message(state, PANDA, 1_000, 0))
        pose.publish(pose_message(state, EEF_POSE, 1_000))
        client.wait(named, 10, "the missing camera is named")
        assert client.status("policy_node")[0].startswith("holding: waiting for")
        assert not watch.seen


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_whatever_inference_throws_is_a_named_hold_and_the_policy_lives_on(mode):
    env = {"FAKE_LOAD": "flaky", "FAKE_HORIZON": "30"}
    with fake_graph(env=env, mode=mode, autostart=False) as runner:
        client, said = runner.client, []
        client.subscribe(
            DiagnosticStatus, "policy_node/status", lambda message: said.append(message.message)
        )
        client.transition("policy_node", "configure")
        client.transition("policy_node", "activate")
        over = lambda: client.status("sim_bridge_node")[1].get("done") == "true"  # noqa: E731
        client.wait(over, 15, "the end")
        assert "holding: inference failed: RuntimeError: out of memory" in said
        assert "holding: no such camera" in said
        runner.check()
