"""Leaves out the test files whose libraries are not installed, and says which libraries."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.libraries import hide_libraries, missing_libraries

# Small networks are several times slower on two threads that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A background job of a shell ignores Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
hide_libraries()

_left_out: dict[Path, frozenset[str]] = {}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a test file that could not be imported, and a folder whose conftest could not."""
    conftest = collection_path / "conftest.py"
    if conftest.is_file():
        missing = missing_libraries(conftest)
        files = collection_path.rglob("test_*.py") if missing else []
    elif collection_path.name.startswith("test_") and collection_path.suffix == ".py":
        missing, files = missing_libraries(collection_path), [collection_path]
    else:
        return None
    _left_out.update(dict.fromkeys(files, missing) if missing else {})
    return True if missing else None


@pytest.fixture(scope="session")
def exported_tiny(tmp_path_factory):
    """A tiny bundle with its graphs, and how far these are from the network; tests leave it as is.

    Exporting takes ten seconds, so the tests share it. Without torch no test asks for it.
    """
    from support.tiny_bundle import write_tiny_bundle

    from z1_ros.models.bundle.export import export
    from z1_ros.models.bundle.manifest import load_bundle

    bundle = write_tiny_bundle(tmp_path_factory.mktemp("exported") / "tiny")
    differences = export(bundle)
    return load_bundle(bundle.path), differences


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test after a long value's first characters."""
    return f"{val[:40]}…{len(val)}" if isinstance(val, str) and len(val) > 100 else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist: report what was left out to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        left_out = {str(path): sorted(missing) for path, missing in _left_out.items()}
        session.config.workeroutput["left_out"] = left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the report of a worker of pytest-xdist."""
    for path, missing in getattr(node, "workeroutput", {}).get("left_out", {}).items():
        _left_out[Path(path)] = frozenset(missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not tested, and why."""
    if not _left_out:
        return
    terminalreporter.section(f"{len(_left_out)} test files left out: libraries are missing")
    missing = Counter(name for names in _left_out.values() for name in names)
    for name, files in missing.most_common():
        terminalreporter.line(f"{name} is not installed: {files} files")
