"""Where no image can be rendered, the error names the cause and what helps against it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from z1_ros.errors import GraphicsUnavailable
from z1_ros.sim import opengl

TRY = """
from z1_ros.errors import GraphicsUnavailable
from z1_ros.sim.opengl import make_context
try:
    make_context()
except GraphicsUnavailable as error:
    print(error)
"""
OBSERVE = """
import numpy as np
from z1_ros.sim.registry import EnvMaker
env = EnvMaker(simulator='kitchen', task='OpenDrawer', embodiment='panda')()
env.reset(0)
env.step(np.zeros((2, 7)))
try:
    env.observe()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("MUJOCO_GL", "eglx", "MUJOCO_GL is 'eglx'. Known: egl, glfw, osmesa. Did you mean 'egl'?"),
        ("MUJOCO_EGL_DEVICE_ID", "77", "unset MUJOCO_EGL_DEVICE_ID"),
        ("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere", "unset __EGL_VENDOR_LIBRARY_FILENAMES"),
    ],
)
def test_a_variable_that_is_in_the_way_is_named(variable: str, value: str, words: str) -> None:
    env = {name: text for name, text in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-c", TRY],
        capture_output=True,
        text=True,
        timeout=60,
        env={**env, variable: value},
    )
    assert words in done.stdout, done.stderr
    assert "apt-get" not in done.stdout


@pytest.fixture
def no_context(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let every library fail, as if nothing but the given things were installed."""

    def fail(choice: str) -> type:
        raise RuntimeError("no display")

    for name in ("MUJOCO_GL", *opengl._VENDOR_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(opengl, "_context_class", fail)
    monkeypatch.setattr(opengl, "find_library", lambda name: f"lib{name}.so")
    monkeypatch.setattr(Path, "glob", _no_files)
    return monkeypatch


def _no_files(folder: Path, pattern: str) -> list[Path]:
    return []


def advice() -> str:
    with pytest.raises(GraphicsUnavailable) as error:
        opengl.make_context()
    return str(error.value)


def test_no_libegl(no_context: pytest.MonkeyPatch) -> None:
    no_context.setattr(opengl, "find_library", lambda name: None)
    assert "libEGL is not installed; apt-get install libegl1" in advice()


def test_no_driver(no_context: pytest.MonkeyPatch) -> None:
    assert "libEGL has no driver" in advice() and "NVIDIA_DRIVER_CAPABILITIES" in advice()


def test_no_permission(no_context: pytest.MonkeyPatch) -> None:
    found = {"*.json": [Path("50_mesa.json")], "renderD*": [Path("/dev/dri/renderD128")]}
    no_context.setattr(Path, "glob", lambda folder, pattern: found.get(pattern, []))
    no_context.setattr(os, "access", lambda path, mode: False)
    words = advice()
    assert "this user may not use /dev/dri/renderD128" in words and "apt-get" not in words


def test_a_driver_without_headless_rendering(no_context: pytest.MonkeyPatch) -> None:
    found = {"*.json": [Path("10_nvidia.json")]}
    no_context.setattr(Path, "glob", lambda folder, pattern: found.get(pattern, []))
    assert "makes no context without a display" in advice() and "libegl-mesa0" in advice()


def test_no_osmesa(no_context: pytest.MonkeyPatch) -> None:
    no_context.setenv("MUJOCO_GL", "osmesa")
    no_context.setattr(opengl, "find_library", lambda name: None)
    assert "apt-get install libosmesa6, or unset MUJOCO_GL" in advice()


def test_no_display_for_glfw(no_context: pytest.MonkeyPatch) -> None:
    no_context.setenv("MUJOCO_GL", "glfw")
    no_context.setenv("DISPLAY", ":77")
    assert "DISPLAY is ':77'; unset MUJOCO_GL" in advice() and "apt-get" not in advice()


def test_physics_needs_no_opengl_and_rendering_says_what_is_wrong() -> None:
    run = subprocess.run(
        [sys.executable, "-c", OBSERVE],
        capture_output=True,
        text=True,
        env={**os.environ, "MUJOCO_GL": "disable"},
        check=True,
        timeout=60,
    )
    assert run.stdout.startswith(GraphicsUnavailable.__name__), run.stderr
    assert "MUJOCO_GL is 'disable'" in run.stdout and len(run.stdout.splitlines()) == 1


def test_a_display_that_nobody_serves_does_not_stop_rendering() -> None:
    """Containers often inherit DISPLAY; the images must come all the same."""
    run = subprocess.run(
        [sys.executable, "-c", OBSERVE],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if k != "MUJOCO_GL"} | {"DISPLAY": ":77"},
    )
    assert not run.stdout
