"""The guard process: a stop is latched, named, and released only by a reset."""

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool
from support.graphs import PATIENCE_S, Watch, actions, fake_graph, is_hold, moving

from z1_ros.errors import GraphError
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph


def stands_still(safe: Watch, mode: str) -> None:
    """In realtime, holds come all the time; in lockstep, physics waits for an action."""
    if mode == "lockstep":
        safe.silence()
    else:
        assert all(is_hold(action) for action in safe.more(5))


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_emergency_stop_latches_until_it_is_released_and_reset(mode):
    with fake_graph(env={"FAKE_HORIZON": "1000000"}, mode=mode) as runner:
        client, safe = runner.client, actions(runner)
        said = lambda: client.status("guard_node")  # noqa: E731
        moving(safe)
        button = client.node.create_publisher(Bool, "estop", 1)
        safe.wait(button.get_subscription_count, "the guard listens")
        button.publish(Bool(data=True))
        safe.wait(lambda: said()[0] == "stopped: emergency stop pressed", "it is named")
        # Actions from before the stop may still be on their way; a topic keeps its order.
        held = "holding: the guard stopped the robot; call ~/start when it may move again"
        safe.wait(lambda: client.status("policy_node")[0] == held, "the policy stops, too")
        stands_still(safe, mode)
        with pytest.raises(GraphError, match="still pressed"):
            client.trigger("guard_node/reset")
        button.publish(Bool(data=False))
        safe.wait(lambda: said()[1]["estop"] == "false", "the release is heard")
        stands_still(safe, mode)  # releasing alone changes nothing
        with pytest.raises(GraphError, match="the guard is stopped; call guard_node/reset first"):
            client.trigger("policy_node/start")
        assert client.trigger("guard_node/reset") == "released: emergency stop pressed"
        stands_still(safe, mode)  # a reset is no restart (ISO 13850)
        assert client.trigger("policy_node/start") == "acting"
        safe.seen.clear()
        moving(safe)


@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_a_button_of_either_reliability_is_heard(reliability):
    with fake_graph(only=("guard_node",)) as runner:
        client = runner.client
        profile = QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability])
        button = client.node.create_publisher(Bool, "estop", profile)

        def stopped() -> bool:
            button.publish(Bool(data=True))
            return client.status("guard_node")[1].get("estop") == "true"

        client.wait(stopped, PATIENCE_S, "the guard hears")


def test_a_latched_button_pressed_before_the_guard_starts_is_heard():
    with fake_graph(only=("sim_bridge_node",)) as runner:
        client = runner.client
        profile = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        button = client.node.create_publisher(Bool, "estop", profile)
        button.publish(Bool(data=True))
        nodes = policy_graph(PolicyGraphConfig()).nodes
        runner._spawn(next(node for node in nodes if node.name == "guard_node"))
        pressed = lambda: client.status("guard_node")[1].get("estop") == "true"  # noqa: E731
        client.wait(pressed, PATIENCE_S, "a stop")
        with pytest.raises(GraphError, match="still pressed"):
            client.trigger("guard_node/reset")
