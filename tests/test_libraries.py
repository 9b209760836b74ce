"""Without a library the tests that need it are left out, and all others are still there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, libraries

ABSENT = "torch,transformers,safetensors,onnx,onnxscript,tensorboard,matplotlib,peft"


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("import nowhere.deeper", {"nowhere"}),
        ("from nowhere import thing", {"nowhere"}),
        ("import os, numpy.linalg", set()),
        ("def later():\n    import nowhere", set()),
        ("try:\n    import nowhere\nexcept ImportError:\n    pass", set()),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nowhere", set()),
        ("class A:\n    import nowhere", {"nowhere"}),
        ("import sys\nif sys.argv:\n    import nowhere", {"nowhere"}),
        ("from z1_ros import errors", set()),
    ],
)
def test_imports_are_read_not_run(tmp_path: Path, code: str, missing: set[str]) -> None:
    path = tmp_path / "test_x.py"
    path.write_text(code)
    assert libraries.missing_libraries(path) == missing


def test_modules_of_ours_and_their_packages_count(tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    path.write_text("from z1_ros.models.network import pi05\nfrom support.libraries import OURS\n")
    assert "torch" in libraries._libraries(path)
    path = tmp_path / "test_y.py"
    path.write_text("import z1_ros.policy.vla, z1_ros.runtime.loop")
    assert "torch" not in libraries._libraries(path)


def test_without_torch_every_remaining_file_is_collected() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
    env = {**os.environ, "Z1_WITHOUT": ABSENT}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "test files left out" in done.stdout and "torch is not installed" in done.stdout
    for needs_none in ("policy/test_transforms", "runtime/test_loop", "test_specs"):
        assert f"tests/{needs_none}.py::" in done.stdout
