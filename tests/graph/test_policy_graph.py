"""The graph is declared once, is complete, and names what is wrong with a request."""

from dataclasses import replace

import pytest

from z1_ros.config import choices, flatten, unflatten
from z1_ros.errors import BundleError, ConfigError
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes import configs

CONFIG = PolicyGraphConfig()
NODES = {
    "sim_bridge_node": configs.SimBridgeConfig(),
    "guard_node": configs.GuardNodeConfig(),
    "policy_node": configs.PolicyNodeConfig(),
}


@pytest.mark.parametrize("mode", choices(configs.PolicyNodeConfig)["mode"])
def test_the_guard_is_always_there_and_all_agree_on_mode_and_robot(mode):
    made = policy_graph(replace(CONFIG, mode=mode))
    assert {node.name for node in made.nodes} == set(NODES)
    assert {node.parameters["mode"] for node in made.nodes} == {mode}
    assert {node.parameters["embodiment"] for node in made.nodes} == {"panda"}
    assert [node.name for node in made.nodes if node.lifecycle] == ["policy_node"]


def test_all_parameters_are_valid_for_their_nodes():
    for node in policy_graph(CONFIG).nodes:
        unflatten(NODES[node.name], node.parameters)


def test_images_come_when_the_policy_needs_them():
    """A policy that is told no number takes its bundle's, and compares it at a reload."""
    own = load_bundle(PolicyGraphConfig().model).manifest.replan_steps
    for given, rendered in ((0, own), (2, 2)):
        nodes = policy_graph(replace(CONFIG, replan_steps=given)).nodes
        made = {node.name: node.parameters for node in nodes}
        assert made["policy_node"]["replan_steps"] == given
        assert made["sim_bridge_node"]["image_every_steps"] == rendered


def test_robot_and_rhythm_are_the_bundles(tmp_path):
    pytest.importorskip("torch", reason="the small bundle is made with it")
    from support.tiny_bundle import write_tiny_bundle

    from z1_ros.models.bundle.manifest import write_manifest

    bundle = write_tiny_bundle(tmp_path / "tiny")
    write_manifest(bundle.path, replace(bundle.manifest, embodiment="panda_omron"))
    made = policy_graph(PolicyGraphConfig(model=str(tmp_path / "tiny")))
    assert {node.parameters["embodiment"] for node in made.nodes} == {"panda_omron"}
    by_name = {node.name: node.parameters for node in made.nodes}
    assert by_name["sim_bridge_node"]["image_every_steps"] == bundle.manifest.replan_steps


def test_sim_time_reaches_every_node():
    made = policy_graph(replace(CONFIG, use_sim_time=True))
    assert all(node.parameters["use_sim_time"] for node in made.nodes)


def test_every_launch_argument_is_described():
    from z1_ros.config import descriptions

    texts = descriptions(PolicyGraphConfig)
    assert all(texts[name] for name in flatten(PolicyGraphConfig()))


@pytest.mark.parametrize("robot", ["robocasa", "franka"])
def test_a_robot_that_comes_later_says_so(robot):
    with pytest.raises(ConfigError, match=f"robot '{robot}' is not part of this version"):
        policy_graph(replace(CONFIG, robot=robot))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"robot": "kitchn"}, "robot is 'kitchn'. Known: franka, kitchen, robocasa. Did you mean"),
        ({"mode": "real"}, "setting 'mode' is 'real'. Known: lockstep, realtime."),
        ({"log_level": "loud"}, "setting 'log_level' is 'loud'"),
        ({"discovery": "all"}, "setting 'discovery' is 'all'. Known: auto, localhost, subnet."),
        ({"backend": "tensorrt"}, "setting 'backend' is 'tensorrt'. Known: auto, onnxruntime, tor"),
    ],
)
def test_unknown_choices_are_named(changes, says):
    with pytest.raises(ConfigError) as caught:
        unflatten(CONFIG, changes)
    assert says in str(caught.value)


def test_the_nodes_offer_the_backends_there_are():
    from z1_ros.policy.backends import BACKENDS

    assert set(choices(configs.PolicyNodeConfig)["backend"]) == {"auto", *BACKENDS}


def test_missing_files_are_named():
    with pytest.raises(ConfigError, match=r"no params_file at nowhere\.yaml"):
        policy_graph(replace(CONFIG, params_file="nowhere.yaml"))
    with pytest.raises(ConfigError, match=r"no fastdds_profile at nowhere\.xml"):
        policy_graph(replace(CONFIG, fastdds_profile="nowhere.xml"))
    with pytest.raises(BundleError, match="no model bundle at no/such"):
        policy_graph(replace(CONFIG, model="no/such"))


def test_the_graph_says_how_large_the_images_of_each_node_are():
    made = policy_graph(replace(CONFIG, image_size=480))
    assert [node.image_bytes for node in made.nodes] == [3 * 480 * 480, 0, 0]
    made = policy_graph(replace(CONFIG, video_size=480))
    assert made.nodes[0].image_bytes == 3 * 480 * 640


def test_the_simulator_renders_as_in_process_evaluation_does():
    from z1_ros.sim.kitchen import KitchenConfig

    assert configs.SimBridgeConfig().image_size == KitchenConfig().image_size


def test_graphs_in_namespaces_have_clocks_of_their_own():
    for namespace, remap in (("", {}), ("left_arm", {"/clock": "clock"})):
        graph = policy_graph(PolicyGraphConfig(namespace=namespace))
        assert all(node.remap == remap for node in graph.nodes)
