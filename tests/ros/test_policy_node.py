"""The policy's life cycle: silent unless active, and never half-configured."""

import time

import pytest
from lifecycle_msgs.srv import ChangeState
from support.graphs import PATIENCE_S, actions, fake_graph, is_hold, moving

from z1_ros.errors import GraphError
from z1_ros.graph.client import TRANSITIONS

LONG = {"FAKE_HORIZON": "1000000"}
POLICY = "policy_node"


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_it_acts_only_while_active_and_says_goodbye_with_a_hold(mode):
    with fake_graph(env=LONG, mode=mode, autostart=False) as runner:
        client, watch = runner.client, actions(runner, "action")
        assert client.state(POLICY) == "unconfigured"
        watch.collect(0.4)
        client.transition(POLICY, "configure")
        assert client.state(POLICY) == "inactive"
        watch.collect(0.4)
        assert not watch.seen, "neither unconfigured nor inactive"
        client.transition(POLICY, "activate")
        moving(watch)
        client.transition(POLICY, "deactivate")
        watch.silence()
        if mode == "realtime":
            assert is_hold(watch.seen[-1])
        watch.seen.clear()
        client.transition(POLICY, "activate")
        moving(watch)
        client.transition(POLICY, "deactivate")
        client.transition(POLICY, "cleanup")
        assert client.state(POLICY) == "unconfigured"
        client.transition(POLICY, "configure")
        client.transition(POLICY, "activate")


@pytest.mark.parametrize("transition", ["configure", "activate", "cleanup"])
def test_a_transition_that_the_state_does_not_have_is_refused_and_nothing_ends(transition):
    """Rclpy's own answer is an exception that ends the process, and the graph with it."""
    with fake_graph(env=LONG) as runner:
        client, watch = runner.client, actions(runner, "action")
        moving(watch)
        request = ChangeState.Request()
        request.transition.id = TRANSITIONS[transition][0]
        assert not client.call(ChangeState, f"{POLICY}/change_state", request).success
        assert client.state(POLICY) == "active"
        watch.seen.clear()
        moving(watch)
        runner.check()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"env": {"FAKE_LOAD": "bundle"}}, "no model bundle at"),
        ({"env": {"FAKE_LOAD": "crash"}}, "RuntimeError: the library is broken"),
        ({"env": {"FAKE_LOAD": "misfit"}}, "needs camera 'wrist'"),
        ({"replan_steps": 9}, "replan_steps is 9, expected 1 to the horizon 8"),
    ],
)
def test_a_model_that_does_not_fit_leaves_it_unconfigured_with_one_sentence(settings, says):
    with fake_graph(autostart=False, **settings) as runner:
        client = runner.client
        with pytest.raises(GraphError, match="policy_node did not configure"):
            client.transition(POLICY, "configure")
        assert client.state(POLICY) == "unconfigured"
        client.wait(lambda: says in client.status(POLICY)[0], PATIENCE_S, says)


def test_an_endless_instruction_is_a_named_hold():
    from std_msgs.msg import String

    with fake_graph(env=LONG) as runner:
        client, watch = runner.client, actions(runner, "action")
        moving(watch)
        words = client.node.create_publisher(String, "instruction", 1)
        watch.wait(words.get_subscription_count, "the policy listens")
        words.publish(String(data="open the drawer " * 1000))
        said = "holding: the instruction has 15999 characters, at most 1000 are allowed"
        watch.wait(lambda: client.status(POLICY)[0] == said, said)
        words.publish(String(data="open the drawer"))
        watch.wait(lambda: client.status(POLICY)[0] == "acting", "it acts")


def test_stop_start_reset_and_a_new_instruction():
    from std_msgs.msg import String

    with fake_graph(env=LONG) as runner:
        client, watch = runner.client, actions(runner, "action")
        moving(watch)
        client.trigger(f"{POLICY}/stop")
        assert all(is_hold(action) for action in watch.after(time.time_ns(), n=5))
        stopped = lambda: client.status(POLICY)[0] == "holding: stopped by ~/stop"  # noqa: E731
        watch.wait(stopped, "it is named")
        client.trigger(f"{POLICY}/start")
        watch.seen.clear()
        moving(watch)
        client.set_parameters(POLICY, {"noise_seed": 5})
        assert client.trigger(f"{POLICY}/reset") == "noise seed 5"
        words = client.node.create_publisher(String, "instruction", 1)
        client.wait(lambda: words.get_subscription_count() > 0, PATIENCE_S, "it listens")
        words.publish(String(data="close the drawer"))
        client.wait(
            lambda: client.status(POLICY)[1].get("instruction") == "close the drawer",
            PATIENCE_S,
            "heard",
        )
        words.publish(String(data=" "))
        client.wait(
            lambda: "no instruction" in client.status(POLICY)[0], PATIENCE_S, "empty means hold"
        )
