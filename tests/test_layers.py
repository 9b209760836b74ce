"""Imports go one way, ROS and torch stay in their rooms, and every room is tested."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from z1_ros.sim.registry import SIMULATORS

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
# Inside two rooms, the folders have an order of their own; those of one level may use each other.
FOLDER_LEVELS = {
    "models": (("network",), ("checkpoint",), ("bundle",), ("importing", "parity")),
    "learning": (("core",), ("sft", "rollout"), ("grpo", "distill"), ("analysis",)),
}
LINES, FILES = 400, 14
ROS = {"rclpy", "launch", "launch_ros", "ament_index_python"}
ROS_SUFFIXES = ("_msgs", "_srvs", "_interfaces")
TESTED_ROOMS = ("models", "runtime", "learning")

ROS_USERS_AMONG_COMMANDS = {"z1_ros.commands.demo"}
"""Commands that are of no use without ROS; all others import it when they need it."""
WITHOUT_A_TEST_OF_ITS_OWN: set[str] = {
    "z1_ros.models.parity.__main__",  # two lines
}
"""Modules that the test of another one covers; say which."""


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


@cache
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
def test_ros_is_imported_in_nodes_and_graph_only(path: Path) -> None:
    """Commands import it inside functions, so that they work without it."""
    name = name_of(path)
    if layer(name) in ("nodes", "graph") or name in ROS_USERS_AMONG_COMMANDS:
        return
    for target in imports(path, top_level_only=layer(name) == "commands"):
        head = target.split(".")[0]
        assert head not in ROS and not head.endswith(ROS_SUFFIXES), f"{path} imports {target}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_torch_stays_in_models_backends_and_learning(path: Path) -> None:
    uses_torch = any(target.split(".")[0] == "torch" for target in imports(path))
    allowed = layer(name_of(path)) in TORCH or "backends" in path.parts
    assert allowed or not uses_torch, f"{path} imports torch"


def folder(module: str) -> str:
    """Return the room of a module, with its folder inside the room."""
    parts = module.split(".")
    package = ROOT.joinpath(*parts[1:]).is_dir()
    return ".".join(parts[1:] if package else parts[1:-1])


@cache
def folder_imports() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for path in modules():
        own = folder(name_of(path))
        others = {folder(t) for t in imports(path) if t.startswith("z1_ros.")}
        # A package and what it consists of belong together.
        graph.setdefault(own, set()).update(
            o for o in others if not f"{own}.".startswith(f"{o}.") and not o.startswith(f"{own}.")
        )
    return graph


@pytest.mark.parametrize("room", FOLDER_LEVELS)
def test_folders_inside_a_room_have_an_order(room: str) -> None:
    level = {f"{room}.{name}": n for n, names in enumerate(FOLDER_LEVELS[room]) for name in names}
    wrong = [
        f"{own} must not import {other}"
        for own, others in folder_imports().items()
        for other in others
        if own in level and other in level and level[other] > level[own]
    ]
    assert not wrong, "; ".join(sorted(wrong))


def test_every_folder_of_those_rooms_has_a_place_in_the_order() -> None:
    known = {
        f"{room}.{name}" for room, all_ in FOLDER_LEVELS.items() for row in all_ for name in row
    }
    found = {f for f in folder_imports() if f.split(".")[0] in FOLDER_LEVELS and "." in f}
    assert found <= known


def test_there_are_no_cycles_of_folders() -> None:
    assert not cycle(folder_imports()), cycle(folder_imports())


def cycle(graph: dict[str, set[str]]) -> str | None:
    """Return the first cycle as ``a -> b -> a``, None if there is none."""
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> str | None:
        if name in trail:
            return " -> ".join((*trail[trail.index(name) :], name))
        if name in done:
            return None
        for target in sorted(graph.get(name, ())):
            if found := visit(target, (*trail, name)):
                return found
        done.add(name)
        return None

    return next(filter(None, (visit(name, ()) for name in sorted(graph))), None)


def test_there_are_no_import_cycles() -> None:
    names = {name_of(path): path for path in modules()}
    graph = {
        name: {t for t in imports(path, top_level_only=True) if t in names and t != name}
        for name, path in names.items()
    }
    assert cycle(graph) is None


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LINES, f"{path.relative_to(ROOT)} has {lines} lines, at most {LINES} are read"


def test_a_folder_is_small_enough_to_be_known() -> None:
    counts: dict[str, int] = {}
    for path in modules():
        if path.name != "__init__.py" and layer(name_of(path)) != "commands":
            counts[folder(name_of(path))] = counts.get(folder(name_of(path)), 0) + 1
    assert not {name: n for name, n in counts.items() if n > FILES}


@pytest.mark.parametrize(
    "path",
    [p for p in modules() if layer(name_of(p)) in ("learning", "nodes", "graph", "commands")],
    ids=name_of,
)
def test_no_simulator_is_named_above_the_registry(path: Path) -> None:
    """Bundles may be called after one: ``kitchen-z1`` is a default, and a file name."""
    named = [text for text in spoken(path) if any(s in text.lower() for s in SIMULATORS)]
    assert not named, f"{path.relative_to(ROOT)} names a simulator: {named}"


def spoken(path: Path) -> Iterator[str]:
    """Yield the identifiers and strings of a module; docstrings and names of bundles are none."""
    tree = ast.parse(path.read_text("utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value.replace("kitchen-z1", "").replace("kitchen-sft", "")
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in modules()
        if layer(name_of(path)) in TESTED_ROOMS and path.name != "__init__.py"
    ],
    ids=name_of,
)
def test_every_module_has_its_test_by_name(path: Path) -> None:
    if name_of(path) in WITHOUT_A_TEST_OF_ITS_OWN:
        return
    place = path.relative_to(ROOT).parent / f"test_{path.name}"
    exists = (ROOT.parent / "tests" / place).is_file()
    assert exists, f"no tests/{place}"


def test_modules_without_a_test_exist_and_have_none() -> None:
    """The list of exceptions holds no more than it must."""
    assert WITHOUT_A_TEST_OF_ITS_OWN <= NAMES


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
