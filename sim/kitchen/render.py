"""Off-screen images, rendered with MuJoCo's own OpenGL renderer."""

import importlib
import os
import sys
from ctypes.util import find_library
from pathlib import Path

import mujoco
import numpy as np

from z1_ros.errors import GraphicsUnavailable, closest

_BACKENDS = ("egl", "osmesa", "glfw")
_MESA = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"
_VENDORS = ("/etc/glvnd/egl_vendor.d", "/usr/share/glvnd/egl_vendor.d")
_VENDOR_VARIABLES = ("__EGL_VENDOR_LIBRARY_FILENAMES", "__EGL_VENDOR_LIBRARY_DIRS")


def make_context() -> object:
    """Return a new OpenGL context, current in this thread.

    ``MUJOCO_GL`` decides; without it those of EGL, OSMesa and GLFW that are installed are tried
    in this order, whatever ``DISPLAY`` says: a container often has one that nobody serves.

    Raises:
        GraphicsUnavailable: No context could be made.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    failures = []
    for name in [chosen] if chosen else _installed():
        try:
            context = _context_class(name)(64, 64)
            context.make_current()
            return context
        except Exception as error:  # each GL library has error types of its own
            failures.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
    raise GraphicsUnavailable(_explain(chosen, "; ".join(failures)))


def _explain(chosen: str, errors: str) -> str:
    """Return why nothing can be rendered, what helps, and the libraries' own words."""
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
    """Return why EGL, the usual way without a display, gives no context, and what helps."""
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


def _installed() -> list[str]:
    """Return the backends worth trying; a failed try settles what PyOpenGL binds to."""
    libraries = {"egl": "EGL", "osmesa": "OSMesa"}
    found = [name for name, library in libraries.items() if find_library(library)]
    return (found + (["glfw"] if os.environ.get("DISPLAY") else [])) or ["egl"]


def _context_class(choice: str) -> type:
    """Return MuJoCo's context class of a backend, whatever was chosen when it was imported."""
    if choice not in _BACKENDS:
        raise ValueError(f"MUJOCO_GL must be one of {', '.join(_BACKENDS)}")
    if choice != "glfw" and "OpenGL" not in sys.modules:
        os.environ["PYOPENGL_PLATFORM"] = choice  # read once, when PyOpenGL is imported
    return importlib.import_module(f"mujoco.{choice}").GLContext


_FAST = {"offsamples": 0, "shadowsize": 0, "numslices": 14, "numstacks": 8, "numquads": 1}
_FINE = {"offsamples": 4, "shadowsize": 1024, "numslices": 16, "numstacks": 8, "numquads": 1}


class Renderer:
    """Renders one model after another; the context is kept between scenes."""

    def __init__(self) -> None:
        self._gl = make_context()
        self._contexts: dict[bool, mujoco.MjrContext] = {}
        self._rendered: dict[bool, mujoco.MjModel] = {}
        self._scene: mujoco.MjvScene | None = None
        self._model: mujoco.MjModel | None = None
        self._option = mujoco.MjvOption()
        self._option.geomgroup[3] = 0
        self._option.sitegroup[4] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def render(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: int, size: tuple[int, int],
        fine: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """Return (height, width, 3) uint8 RGB, upright.

        Args:
            model: The model.
            data: Its state, with kinematics, cameras and lights up to date.
            camera: Camera id.
            size: Height and width [pixel].
            fine: Render shadows and smooth edges, for people; about five times slower.
        """
        height, width = size
        self._gl.make_current()
        context = self._context(model, fine, height, width)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        scene = self._scene
        self._camera.fixedcamid = camera
        mujoco.mjv_updateScene(
            model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, scene
        )
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = fine
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        image = np.empty((height, width, 3), np.uint8)
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, scene, context)
        mujoco.mjr_readPixels(image, None, viewport, context)
        return np.ascontiguousarray(image[::-1])

    def _context(
        self, model: mujoco.MjModel, fine: bool, height: int, width: int
    ) -> mujoco.MjrContext:
        """Return the rendering context with this scene's textures and a large enough buffer."""
        if self._model is not model:
            self._model = model
            self._scene = mujoco.MjvScene(model, maxgeom=600)
        context = self._contexts.get(fine)
        if context is None:
            context = _rendering_context(model, fine)
            self._contexts[fine] = context
            self._rendered[fine] = model
        if self._rendered[fine] is not model:
            for texture in range(model.ntex):
                mujoco.mjr_uploadTexture(model, context, texture)
            self._rendered[fine] = model
        if context.offWidth < width or context.offHeight < height:
            mujoco.mjr_resizeOffscreen(
                max(context.offWidth, width), max(context.offHeight, height), context
            )
        return context

    def close(self) -> None:
        """Free the contexts."""
        for context in self._contexts.values():
            context.free()
        self._contexts.clear()
        self._gl.free()


def _rendering_context(model: mujoco.MjModel, fine: bool) -> mujoco.MjrContext:
    """Return MuJoCo's context for the current GL context, with shadows and smooth edges if fine."""
    quality, values = model.vis.quality, _FINE if fine else _FAST
    for name, value in values.items():
        setattr(quality, name, value)
    try:
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except mujoco.FatalError as error:
        chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
        words = f"OpenGL: {str(error).split(',')[0]}"
        raise GraphicsUnavailable(_explain(chosen, words)) from error
