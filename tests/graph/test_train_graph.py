"""The graphs of training: workers that agree, and the learner that joins them."""

import pytest

from z1_ros.config import unflatten
from z1_ros.errors import ConfigError
from z1_ros.graph.train_graph import TrainGraphConfig, train_graph, worker_graph
from z1_ros.nodes.configs import GuardNodeConfig, SimBridgeConfig
from z1_ros.sim.registry import EnvMaker

MAKER = EnvMaker(simulator="kitchen", task="OpenDrawer", embodiment="panda_omron")


def test_a_worker_is_a_simulator_in_lockstep_and_a_guard():
    graph = worker_graph(MAKER, 4)
    bridge, guard = graph.nodes
    assert (bridge.name, guard.name) == ("sim_bridge_node", "guard_node")
    assert bridge.parameters["image_every_steps"] == 4
    assert bridge.remap == {"/clock": "clock"}, "several simulators must not fight over the clock"
    assert bridge.image_bytes == 3 * SimBridgeConfig().image_size ** 2
    for node, defaults in ((bridge, SimBridgeConfig()), (guard, GuardNodeConfig())):
        config = unflatten(defaults, node.parameters)
        assert (config.mode, config.embodiment) == ("lockstep", "panda_omron")
    assert graph.respawn


def test_workers_and_learner_share_names_and_who_sees_them():
    made = train_graph(TrainGraphConfig(out="somewhere", workers=3, options="--minutes 5"))
    assert [graph.namespace for graph in made.workers] == ["worker0", "worker1", "worker2"]
    words = " ".join(made.learner)
    for flags in ("--through ros", "--attach worker", "--workers 3", "--out somewhere"):
        assert flags in words
    assert made.learner[-2:] == ("--minutes", "5")
    assert made.env["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    made = train_graph(TrainGraphConfig(out="somewhere", discovery="subnet"))
    assert {graph.discovery for graph in made.workers} == {"subnet"}
    assert made.env["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "out is empty; name the bundle to write"),
        ({"out": "x", "task": "OpenDrawr"}, "no task 'OpenDrawr'.*Did you mean 'OpenDrawer'"),
        ({"out": "x", "options": "--a 'b"}, "launch argument options is .*No closing quotation"),
        ({"out": "x", "workers": 0}, "workers is 0, expected at least 1"),
        ({"out": "x", "namespace": "/"}, "namespace is empty"),
    ],
)
def test_mistakes_are_one_sentence(changes, says):
    with pytest.raises(ConfigError, match=says):
        train_graph(TrainGraphConfig(**changes))
