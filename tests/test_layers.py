"""The import order of the design: one way only, ROS only in nodes, no torch in the runtime."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "z1_ros"
ORDER = (
    "root",
    "models",
    "policy",
    "runtime",
    "sim",
    "learning",
    "benchmarks",
    "nodes",
    "graph",
    "commands",
)
TORCH = ("models", "learning", "benchmarks")
ROS = {"rclpy", "launch", "launch_ros", "ament_index_python"}
ROS_SUFFIXES = ("_msgs", "_srvs", "_interfaces")


def modules() -> list[Path]:
    folders = [ROOT, *(ROOT / name for name in ORDER[1:])]
    found = set()
    for folder in folders:
        pattern = "*.py" if folder == ROOT else "**/*.py"
        found |= set(folder.glob(pattern))
    return sorted(found)


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ORDER else "root"


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import module` needs the module, `from module import name` the module.
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (parts & NAMES) or {node.module}
    return found


def name_of(path: Path) -> str:
    return ".".join(("z1_ros", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


NAMES = {name_of(path) for path in modules()}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_one_way_only(path: Path) -> None:
    own = ORDER.index(layer(name_of(path)))
    for target in imports(path):
        if target.startswith("z1_ros"):
            assert ORDER.index(layer(target)) <= own, f"{name_of(path)} must not import {target}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_ros_is_imported_in_nodes_only(path: Path) -> None:
    if layer(name_of(path)) in ("nodes", "graph", "commands"):
        return
    for target in imports(path):
        head = target.split(".")[0]
        assert head not in ROS and not head.endswith(ROS_SUFFIXES), f"{path} imports {target}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_torch_stays_in_models_backends_and_learning(path: Path) -> None:
    uses_torch = any(target.split(".")[0] == "torch" for target in imports(path))
    allowed = layer(name_of(path)) in TORCH or "backends" in path.parts
    assert allowed or not uses_torch, f"{path} imports torch"


def test_there_are_no_import_cycles() -> None:
    names = {name_of(path): path for path in modules()}
    graph = {
        name: {t for t in imports(path, top_level_only=True) if t in names and t != name}
        for name, path in names.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name in done:
            return
        for target in graph[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in names:
        visit(name, ())


def test_the_deployed_runtime_imports_without_torch() -> None:
    """Policy, runtime, simulator and nodes' graph load in a process where torch cannot."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import z1_ros.policy.vla, z1_ros.policy.backends, z1_ros.runtime.loop\n"
        "import z1_ros.runtime.guard, z1_ros.sim.kitchen, z1_ros.sim.evaluation\n"
        "import z1_ros.graph.policy_graph\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_ros_launch_draws_the_graphs_with_its_own_python() -> None:
    """``ros2 launch`` is run by the system's Python, which has NumPy and PyYAML of all we need."""
    code = (
        "import sys\n"
        "for name in ('mujoco', 'cv2', 'tokenizers', 'torch', 'onnxruntime', 'tyro', 'rich'):\n"
        "    sys.modules[name] = None\n"
        "from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph\n"
        "from z1_ros.graph.train_graph import TrainGraphConfig, train_graph\n"
        "policy_graph(PolicyGraphConfig())\n"
        "train_graph(TrainGraphConfig(out='somewhere'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
