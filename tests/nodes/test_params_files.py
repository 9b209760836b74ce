"""The YAML files we ship hold valid deviations, and nothing that is the default anyway."""

import pytest
import yaml
from support import ROOT

from z1_ros.config import flatten, unflatten
from z1_ros.nodes.configs import GuardNodeConfig, PolicyNodeConfig, SimBridgeConfig

FILES = sorted((ROOT / "launch" / "params").glob("*.yaml"))
CONFIGS = {
    "policy_node": PolicyNodeConfig(),
    "guard_node": GuardNodeConfig(),
    "sim_bridge_node": SimBridgeConfig(),
}


def test_there_are_some():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_params_file_is_valid_in_every_namespace_and_holds_deviations_only(path):
    data = yaml.safe_load(path.read_text("utf-8"))
    assert list(data) == ["/**"], "a bare node name is ignored in a namespace, without a warning"
    for node, block in data["/**"].items():
        assert list(block) == ["ros__parameters"]
        default = flatten(CONFIGS[node])
        values = {}
        for name, value in block["ros__parameters"].items():
            group = value if isinstance(value, dict) else {"": value}
            values |= {f"{name}.{inner}".strip("."): found for inner, found in group.items()}
        unflatten(CONFIGS[node], values)
        same = [name for name, value in values.items() if value == default[name]]
        assert not same, f"{node}: {same} are the defaults"
