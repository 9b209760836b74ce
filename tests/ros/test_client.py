"""The client: waits with words, services that are asked again, refusals in the node's sentence."""

import threading
import time

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

from z1_ros.environ import environment
from z1_ros.errors import GraphError
from z1_ros.graph.client import GraphClient
from z1_ros.graph.dds import dds_env
from z1_ros.graph.domains import FreeDomain


@pytest.fixture
def graph():
    """A client, and a node beside it whose services the test makes."""
    domain, context = FreeDomain(), Context()
    with environment(dds_env("localhost")):
        rclpy.init(context=context, domain_id=domain.id)
        node = rclpy.create_node("sim_bridge_node", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    spinner = threading.Thread(target=spin)
    spinner.start()
    with GraphClient(domain.id, discovery="localhost") as client:
        yield client, node
    stop.set()
    spinner.join()
    executor.shutdown()
    node.destroy_node()
    context.shutdown()
    domain.close()


def test_what_does_not_come_is_named_with_what_the_nodes_say(graph):
    client, _ = graph
    with pytest.raises(GraphError, match=r"a miracle: not within 0 s. No node of the graph was h"):
        client.wait(lambda: False, 0.2, "a miracle")
    with pytest.raises(GraphError, match="tea or coffee: not within"):
        client.wait(lambda: False, 0.2, lambda: "tea or coffee")


def test_a_wait_that_has_become_pointless_ends(graph):
    client, _ = graph

    def check() -> None:
        raise GraphError("the simulator is gone")

    client.check = check
    with pytest.raises(GraphError, match="the simulator is gone"):
        client.wait(lambda: False, 60.0, "its end")


def test_a_request_whose_response_was_lost_is_sent_again(graph):
    client, node = graph
    asked = []

    def slow_at_first(_, response):
        asked.append(time.monotonic())
        response.success = True
        return response

    node.create_service(Trigger, "sim_bridge_node/reset", slow_at_first)
    client.call(Trigger, "sim_bridge_node/reset", Trigger.Request())
    service = client._clients["sim_bridge_node/reset"]
    send, lost = service.call_async, []

    def lose_one(request):
        if not lost:
            lost.append(rclpy.Future())
            return lost[0]
        return send(request)

    service.call_async = lose_one
    response = client.call(Trigger, "sim_bridge_node/reset", Trigger.Request(), again_s=0.2)
    assert response.success and len(asked) == 2 and lost


def test_a_refusal_is_the_nodes_own_sentence(graph):
    client, node = graph

    def refuse(_, response):
        response.message = "no such scene"
        return response

    node.create_service(Trigger, "sim_bridge_node/reset", refuse)
    with pytest.raises(GraphError, match="sim_bridge_node/reset refused: no such scene"):
        client.trigger("sim_bridge_node/reset")
