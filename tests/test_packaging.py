"""The package is one that ament, colcon and pip accept, and its executables are where they look."""

import configparser
import subprocess
import sys
import zipfile

import pytest
from support import ROOT

from z1_ros.commands.entry import COMMANDS

NODES = {"policy_node", "guard_node", "sim_bridge_node"}


def test_package_xml_is_valid_format_3() -> None:
    package = pytest.importorskip("catkin_pkg.package")
    warnings: list[str] = []
    parsed = package.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    assert (parsed.name, parsed.package_format, warnings) == ("z1_ros", 3, [])
    assert parsed.get_build_type() == "ament_python"
    assert {d.name for d in parsed.exec_depends} >= {"rclpy", "launch", "launch_ros"}


def test_versions_agree() -> None:
    import z1_ros

    text = (ROOT / "package.xml").read_text()
    assert f"<version>{z1_ros.__version__}</version>" in text
    assert f'version="{z1_ros.__version__}"' in (ROOT / "setup.py").read_text()


def test_every_node_has_a_launchable_wrapper() -> None:
    wrappers = {path.name for path in (ROOT / "scripts").glob("*_node")}
    assert wrappers == NODES
    for name in wrappers:
        path = ROOT / "scripts" / name
        assert path.stat().st_mode & 0o111, f"{path} is not executable"
        assert path.read_text().startswith("#!/usr/bin/env python3\n")
        assert f"from z1_ros.nodes.{name} import main" in path.read_text()


def test_colcon_scripts_use_the_environments_python() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert parser["build_scripts"]["executable"] == "/usr/bin/env python3"
    assert parser["install"]["install_scripts"] == "$base/lib/z1_ros"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT]
    subprocess.run(command, check=True, timeout=170)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_code_bundles_launch_files_and_wrappers(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    for wanted in (
        "z1_ros/models/bundle/manifest.py",
        "z1_ros/sim/kitchen/__init__.py",
        "z1_ros/models/kitchen-sft/manifest.json",
        "z1_ros/models/kitchen-sft/prefix.onnx",
        "z1_ros/models/kitchen-z1/denoise_TurnOnMicrowave.onnx",
    ):
        assert wanted in names
    data = {name.split(".data/data/")[1] for name in names if ".data/data/" in name}
    assert {f"lib/z1_ros/{node}" for node in NODES} <= data
    launch = {f"share/z1_ros/launch/{name}.launch.py" for name in ("policy", "train")}
    assert {"share/z1_ros/package.xml"} | launch <= data
    assert "share/ament_index/resource_index/packages/z1_ros" in data
    tops = {name.split("/")[0] for name in names}
    assert not tops & {"models", "sim", "tests", "launch"}, "top-level names of others are taken"


def test_the_wheel_installs_every_command(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))).decode()
    scripts = configparser.ConfigParser()
    scripts.read_string(text)
    commands = scripts["console_scripts"]
    assert set(commands) == {f"z1-{name}" for name in COMMANDS}
    assert all(path.startswith("z1_ros.commands.entry:") for path in commands.values())


def test_ci_lints_before_it_tests() -> None:
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & 0o111 and "make lint test" in path.read_text()
    lint = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    assert all(f"-m {tool}" in lint for tool in ("ruff check", "ruff format --check", "mypy"))
