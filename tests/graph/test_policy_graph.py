"""The graph is declared once, is complete, and names what is wrong with a request."""

from dataclasses import replace

import pytest

from z1_ros.config import flatten, unflatten
from z1_ros.errors import BundleError, ConfigError
from z1_ros.graph import policy_graph as graph
from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph, profile_env
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes import configs

CONFIG = PolicyGraphConfig()
NODES = {
    "sim_bridge_node": configs.SimBridgeConfig(),
    "guard_node": configs.GuardNodeConfig(),
    "policy_node": configs.PolicyNodeConfig(),
}


@pytest.mark.parametrize("mode", configs.MODES)
def test_the_guard_is_always_there_and_all_agree_on_mode_and_robot(mode):
    made = policy_graph(replace(CONFIG, mode=mode))
    assert {node.name for node in made.nodes} == set(NODES)
    assert {node.parameters["mode"] for node in made.nodes} == {mode}
    assert {node.parameters["embodiment"] for node in made.nodes} == {"panda"}
    assert [node.name for node in made.nodes if node.lifecycle] == ["policy_node"]


def test_all_parameters_are_valid_for_their_nodes():
    for node in policy_graph(CONFIG).nodes:
        unflatten(NODES[node.name], node.parameters)


def test_pictures_come_when_the_policy_needs_them():
    """A policy that is told no number takes its bundle's, and compares it at a reload."""
    own = load_bundle(PolicyGraphConfig().model).manifest.replan_steps
    for given, drawn in ((0, own), (2, 2)):
        nodes = policy_graph(replace(CONFIG, replan_steps=given)).nodes
        made = {node.name: node.parameters for node in nodes}
        assert made["policy_node"]["replan_steps"] == given
        assert made["sim_bridge_node"]["image_every_steps"] == drawn


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
        ({"robot": "kitchn"}, "Did you mean 'kitchen'"),
        ({"mode": "real"}, "mode is 'real'"),
        ({"log_level": "loud"}, "log_level is 'loud'"),
        ({"backend": "tensorrt"}, "backend is 'tensorrt'. Known: auto, onnxruntime, torch."),
    ],
)
def test_unknown_choices_are_named(changes, says):
    with pytest.raises(ConfigError) as caught:
        replace(CONFIG, **changes)
    assert says in str(caught.value)


def test_the_nodes_offer_the_backends_there_are():
    from z1_ros.policy.backends import BACKENDS

    assert set(configs.BACKENDS) == {"auto", *BACKENDS}
    with pytest.raises(ConfigError, match="backend is 'tensorrt'"):
        configs.PolicyNodeConfig(backend="tensorrt")


def test_missing_files_are_named():
    with pytest.raises(ConfigError, match=r"no params_file at nowhere\.yaml"):
        policy_graph(replace(CONFIG, params_file="nowhere.yaml"))
    with pytest.raises(ConfigError, match=r"no fastdds_profile at nowhere\.xml"):
        policy_graph(replace(CONFIG, fastdds_profile="nowhere.xml"))
    with pytest.raises(BundleError, match="no model bundle at no/such"):
        policy_graph(replace(CONFIG, model="no/such"))


def test_the_fast_dds_profile_is_used_where_images_are_large():
    """Measured: 224 x 224 arrives without it; larger images are lost."""
    assert profile_env("auto", 3 * 224 * 224 - 600) == {}
    wanted = profile_env("auto", 3 * 480 * 640)
    assert set(wanted) == {"FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"}
    assert len(set(wanted.values())) == 1
    assert profile_env("", 3 * 480 * 640) == {}
    big = policy_graph(replace(CONFIG, image_size=480))
    assert {node.name for node in big.nodes if node.env} == {"sim_bridge_node"}


def test_the_simulator_renders_as_in_process_evaluation_does():
    from z1_ros.sim.kitchen import KitchenConfig

    assert configs.SimBridgeConfig().image_size == KitchenConfig().image_size


def test_shared_files_are_found_in_every_kind_of_installation(tmp_path, monkeypatch):
    assert graph.shared_file("config/fastdds.xml").is_file()
    (tmp_path / "share" / "z1_ros" / "config").mkdir(parents=True)
    installed = tmp_path / "share" / "z1_ros" / "config" / "only_installed.xml"
    installed.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert graph.shared_file("config/only_installed.xml") == installed
    with pytest.raises(ConfigError, match=r"config/nothing\.xml of z1_ros is at none of"):
        graph.shared_file("config/nothing.xml")
