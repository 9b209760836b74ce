"""The guard process: a stop is latched, named, and released only by a reset."""

import pytest
from harness import actions, fake_graph, is_hold, moving
from std_msgs.msg import Bool

from z1_ros.errors import GraphError


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
