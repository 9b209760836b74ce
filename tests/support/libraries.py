"""Which test files need a library that is not installed here, found by reading their imports.

Without torch (``Z1_TORCH=none make test``) what is left to test is the deployed runtime, which
needs none. No list of files is kept: a file is left out if importing it would import, by way of
our own modules, a library that is absent. What is imported inside a function, in a ``try`` or for
type checks alone does not count.

``Z1_WITHOUT=torch,onnx`` makes libraries absent for one run of the tests.
"""

import ast
import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
OURS = {"z1_ros": TESTS.parent, "support": TESTS}


def hide_libraries() -> None:
    """Make the libraries of ``Z1_WITHOUT`` impossible to import."""
    for name in filter(None, os.environ.get("Z1_WITHOUT", "").split(",")):
        sys.modules[name] = None  # type: ignore[assignment]


def missing_libraries(path: Path) -> frozenset[str]:
    """Return the absent libraries that importing the file ``path`` would import."""
    return frozenset(name for name in _libraries(path) if _is_absent(name))


@cache
def _libraries(path: Path) -> frozenset[str]:
    """Return the libraries that a file imports, also through modules of ours."""
    found: set[str] = set()
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for module in _imports(ast.parse(file.read_text("utf-8")).body):
            head = module.split(".")[0]
            if head in OURS:
                waiting += _files(module)
            else:
                found.add(head)
    return frozenset(found)


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what a module imports when it is imported itself."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from _imports(node.body + node.orelse)
        elif isinstance(node, (ast.With, ast.ClassDef)):
            yield from _imports(node.body)


def _files(module: str) -> list[Path]:
    """Return the files of a module of ours and of the packages around it."""
    parts = module.split(".")
    places = [OURS[parts[0]].joinpath(*parts[: n + 1]) for n in range(len(parts))]
    files = [path for place in places for path in (place / "__init__.py", place.with_suffix(".py"))]
    return [path for path in files if path.is_file()]


@cache
def _is_absent(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is None
    return find_spec(name) is None
