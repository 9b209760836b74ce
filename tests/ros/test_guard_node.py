"""The guard process: a stop is latched, named, and released only by a reset."""

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool
from support.graphs import actions, fake_graph, is_hold, moving

from z1_ros.errors import GraphError
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_emergency_stop_latches_until_it_is_released_and_reset(mode):
    with fake_graph(env={"FAKE_HORIZON": "1000000"}, mode=mode) as runner:
        client, safe = runner.client, actions(runner)
        moving(safe)
        button = client.node.create_publisher(Bool, "estop", 1)
        client.wait(lambda: button.get_subscription_count() > 0, 5, "the guard listens")
        button.publish(Bool(data=True))
        stopped = "stopped: emergency stop pressed"
        client.wait(lambda: client.status("guard_node")[0] == stopped, 5, "it is named")
        # Actions from before the stop may still be on their way; a topic keeps its order.
        client.wait(lambda: safe.seen and is_hold(safe.seen[-1][1]), 5, "a hold arrives")
        safe.seen.clear()
        safe.collect(0.3)
        assert safe.seen
        assert all(is_hold(action) for _, action in safe.seen)
        with pytest.raises(GraphError, match="still pressed"):
            client.trigger("guard_node/reset")
        button.publish(Bool(data=False))
        safe.seen.clear()
        safe.collect(0.3)
        assert all(is_hold(action) for _, action in safe.seen), "releasing alone changes nothing"
        assert client.trigger("guard_node/reset") == "released: emergency stop pressed"
        safe.seen.clear()
        moving(safe)
        assert int(client.status("guard_node")[1]["stopped"]) > 0


@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_a_button_of_either_reliability_is_heard(reliability):
    with fake_graph(only=("guard_node",)) as runner:
        client = runner.client
        profile = QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability])
        button = client.node.create_publisher(Bool, "estop", profile)

        def stopped() -> bool:
            button.publish(Bool(data=True))
            return client.status("guard_node")[1].get("estop") == "true"

        client.wait(stopped, 5, "the guard hears")


def test_a_latched_button_pressed_before_the_guard_starts_is_heard():
    with fake_graph(only=("sim_bridge_node",)) as runner:
        client = runner.client
        profile = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        button = client.node.create_publisher(Bool, "estop", profile)
        button.publish(Bool(data=True))
        nodes = policy_graph(PolicyGraphConfig()).nodes
        runner._spawn(next(node for node in nodes if node.name == "guard_node"))
        client.wait(lambda: client.status("guard_node")[1].get("estop") == "true", 10, "a stop")
        with pytest.raises(GraphError, match="still pressed"):
            client.trigger("guard_node/reset")
