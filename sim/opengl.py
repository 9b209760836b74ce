"""Off-screen OpenGL contexts with MuJoCo's backends, and advice if none can be made."""

import importlib
import os
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any

from z1_ros.errors import GraphicsUnavailable, closest

_BACKENDS = ("egl", "osmesa", "glfw")
_MESA = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"
_VENDORS = ("/etc/glvnd/egl_vendor.d", "/usr/share/glvnd/egl_vendor.d")
_VENDOR_VARIABLES = ("__EGL_VENDOR_LIBRARY_FILENAMES", "__EGL_VENDOR_LIBRARY_DIRS")


def make_context() -> Any:
    """Return a new OpenGL context, which is current in this thread.

    ``MUJOCO_GL`` selects the backend. If it is not set, EGL, OSMesa and GLFW are tried in this
    order, if installed. A ``DISPLAY`` does not change the order: containers often have a
    ``DISPLAY`` without a server.

    Raises:
        GraphicsUnavailable: No context could be made.
    """
    failures = []
    for name in [chosen] if (chosen := _chosen()) else _installed():
        try:
            context = _context_class(name)(64, 64)
            context.make_current()
            return context
        except Exception as error:  # each GL library has its own error types
            failures.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
    raise GraphicsUnavailable(explain("; ".join(failures)))


def explain(errors: str) -> str:
    """Return a message with the cause, a remedy, and the error messages of the libraries."""
    chosen = _chosen()
    unset = "unset MUJOCO_GL, so that what is installed is used"
    if chosen and chosen not in _BACKENDS:
        return f"MUJOCO_GL is {chosen!r}. {closest(chosen, _BACKENDS)} Or {unset}"
    if chosen == "glfw":
        cause = f"MUJOCO_GL=glfw needs a display, and DISPLAY is {os.environ.get('DISPLAY', '')!r}"
        remedy = unset
    elif chosen == "osmesa":
        cause = "MUJOCO_GL=osmesa, and OSMesa does not work here"
        remedy = unset if find_library("OSMesa") else f"apt-get install libosmesa6, or {unset}"
    else:
        cause, remedy = _explain_egl(errors)
    return f"cannot render images: {cause}; {remedy} ({errors})"


def _explain_egl(errors: str) -> tuple[str, str]:
    """Return the cause why EGL, the default without a display, gives no context, and a remedy."""
    for name in ("MUJOCO_EGL_DEVICE_ID", "PYOPENGL_PLATFORM", *_VENDOR_VARIABLES):
        blamed = name in errors or name in _VENDOR_VARIABLES
        if blamed and name in os.environ:
            return f"{name} is {os.environ[name]!r}, which does not fit here", f"unset {name}"
    if not find_library("EGL"):
        return "libEGL is not installed", _MESA
    if not any(Path(folder).glob("*.json") for folder in _VENDORS):
        return (
            "libEGL has no driver",
            f"{_MESA}; for a GPU in a container, give it the driver's graphics libraries "
            "(NVIDIA_DRIVER_CAPABILITIES=all)",
        )
    devices = [*Path("/dev/dri").glob("renderD*"), *Path("/dev").glob("nvidia[0-9]*")]
    closed = [str(path) for path in devices if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        return (
            f"this user may not use {', '.join(closed)}",
            "add it to the device's group (sudo usermod -aG render $USER) and log in again",
        )
    return (
        "the EGL driver makes no context without a display",
        f"for Mesa's software renderer {_MESA}",
    )


def _chosen() -> str:
    return os.environ.get("MUJOCO_GL", "").lower().strip()


def _installed() -> list[str]:
    """Return the backends to try.

    Only installed ones are tried, because PyOpenGL stays bound to the first, even if it fails.
    """
    libraries = {"egl": "EGL", "osmesa": "OSMesa"}
    found = [name for name, library in libraries.items() if find_library(library)]
    return (found + (["glfw"] if os.environ.get("DISPLAY") else [])) or ["egl"]


def _context_class(choice: str) -> type:
    """Return MuJoCo's context class of a backend, also if mujoco was imported with another one."""
    if choice not in _BACKENDS:
        raise ValueError(f"MUJOCO_GL must be one of {', '.join(_BACKENDS)}")
    if choice != "glfw" and "OpenGL" not in sys.modules:
        os.environ["PYOPENGL_PLATFORM"] = choice  # PyOpenGL reads it only when it is imported
    return importlib.import_module(f"mujoco.{choice}").GLContext
