"""The declaration of a graph refuses what its nodes would not understand."""

import pytest

from z1_ros.errors import ConfigError
from z1_ros.graph.spec import Graph, known_parameters
from z1_ros.nodes.configs import GuardNodeConfig


def test_a_parameter_must_be_one_of_its_node():
    given = {"mode": "lockstep", "guard.max_age_s": 0.1, "use_sim_time": True}
    assert known_parameters(GuardNodeConfig(), given) == given
    with pytest.raises(ConfigError, match="GuardNodeConfig has no 'max_age_s'"):
        known_parameters(GuardNodeConfig(), {"max_age_s": 0.1})


def test_files_that_are_given_must_exist(tmp_path):
    Graph(nodes=(), params_file="", fastdds_profile="auto")
    Graph(nodes=(), params_file="", fastdds_profile="")
    missing = str(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=f"no params_file at {missing}"):
        Graph(nodes=(), params_file=missing, fastdds_profile="auto")
    with pytest.raises(ConfigError, match=f"no fastdds_profile at {missing}"):
        Graph(nodes=(), params_file="", fastdds_profile=missing)
