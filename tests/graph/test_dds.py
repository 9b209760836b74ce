"""A graph is seen by this machine only, unless somebody says otherwise; large images arrive."""

import os

import pytest

from z1_ros.errors import ConfigError
from z1_ros.graph import dds
from z1_ros.graph.dds import RANGE, dds_env, describe

FASTRTPS, FASTDDS = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
SMALL, LARGE = 3 * 224 * 224 - 600, 3 * 480 * 640


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    """An environment that says nothing of who sees a graph."""
    names = (RANGE, "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "ROS_LOCALHOST_ONLY")
    for name in (*names, FASTRTPS, FASTDDS):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def profile(env: dict[str, str]) -> str:
    """Return the name of the profile that both generations of Fast DDS are told."""
    assert env.get(FASTRTPS) == env.get(FASTDDS)
    return os.path.basename(env.get(FASTRTPS, ""))  # noqa: PTH119


def test_only_this_machine_sees_a_graph_unless_somebody_says_otherwise():
    for discovery in ("auto", "localhost"):
        env = dds_env(discovery)
        assert (env[RANGE], profile(env)) == ("LOCALHOST", "fastdds_localhost.xml")
        assert describe(discovery).startswith("only this machine sees the graph; discovery:=subnet")
    assert dds_env("subnet") == {RANGE: "SUBNET"}
    assert describe("subnet").startswith("the whole network sees the graph")


@pytest.mark.parametrize(
    ("name", "value"),
    [(RANGE, "SUBNET"), (RANGE, "OFF"), ("ROS_STATIC_PEERS", "10.0.0.7")],
)
def test_what_the_environment_says_stands_unless_an_argument_contradicts(silent, name, value):
    silent.setenv(name, value)
    assert dds_env("auto") == {}
    assert describe("auto") == f"who sees the graph is up to {name}={value}"
    assert dds_env("localhost")[RANGE] == "LOCALHOST"


def test_an_environment_that_says_localhost_gets_all_of_it(silent):
    silent.setenv(RANGE, "LOCALHOST")
    assert profile(dds_env("auto")) == "fastdds_localhost.xml"


def test_the_deprecated_variable_does_not_overrule_an_argument(silent):
    silent.setenv("ROS_LOCALHOST_ONLY", "1")
    assert dds_env("subnet") == {RANGE: "SUBNET", "ROS_LOCALHOST_ONLY": ""}


def test_a_larger_segment_is_used_where_images_are_large():
    """Measured: 224 x 224 arrives without it; larger images are lost."""
    assert profile(dds_env("subnet", image_bytes=SMALL)) == ""
    assert profile(dds_env("subnet", image_bytes=LARGE)) == "fastdds.xml"
    assert profile(dds_env("auto", image_bytes=SMALL)) == "fastdds_localhost.xml"
    assert profile(dds_env("auto", image_bytes=LARGE)) == "fastdds_localhost_large.xml"


def test_a_profile_of_the_users_own_is_taken(silent, tmp_path):
    own = tmp_path / "own.xml"
    assert profile(dds_env("auto", str(own), LARGE)) == "own.xml"
    assert profile(dds_env("auto", "", LARGE)) == ""
    silent.setenv(FASTRTPS, str(own))
    assert dds_env("auto", image_bytes=LARGE) == {RANGE: "LOCALHOST"}


def test_shared_files_are_found_in_every_kind_of_installation(tmp_path, monkeypatch):
    for name in ("fastdds", "fastdds_localhost", "fastdds_localhost_large"):
        assert dds.shared_file(f"config/{name}.xml").is_file()
    (tmp_path / "share" / "z1_ros" / "config").mkdir(parents=True)
    installed = tmp_path / "share" / "z1_ros" / "config" / "only_installed.xml"
    installed.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert dds.shared_file("config/only_installed.xml") == installed
    with pytest.raises(ConfigError, match=r"config/nothing\.xml of z1_ros is at none of"):
        dds.shared_file("config/nothing.xml")
