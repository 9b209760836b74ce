"""Off-screen pictures, drawn with MuJoCo's own OpenGL renderer."""

import os
import sys

import mujoco
import numpy as np

from z1_ros.errors import GraphicsUnavailable

_ADVICE = (
    "no off-screen OpenGL context ({why}): install libegl1 libegl-mesa0 libgl1-mesa-dri and set "
    "MUJOCO_GL=egl, or install libosmesa6 and set MUJOCO_GL=osmesa"
)


def make_context() -> "object":
    """Return a current OpenGL context for this process.

    Without ``MUJOCO_GL`` and without a display, EGL is tried first, then OSMesa.

    Raises:
        GraphicsUnavailable: No context could be made.
    """
    chosen = os.environ.get("MUJOCO_GL")
    headless = sys.platform == "linux" and not os.environ.get("DISPLAY")
    options = [chosen] if chosen or not headless else ["egl", "osmesa"]
    why = ""
    for option in options:
        try:
            context = _context_class(option)(64, 64)
            context.make_current()
            return context
        except Exception as error:  # each GL library has error types of its own
            why = f"{option or 'default'}: {error}".splitlines()[0]
    raise GraphicsUnavailable(_ADVICE.format(why=why))


def _context_class(option: str | None) -> type:
    """Return MuJoCo's context class of a backend, whatever was chosen at import time."""
    if option == "egl":
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
        from mujoco.egl import GLContext
    elif option == "osmesa":
        os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")
        from mujoco.osmesa import GLContext
    elif option in (None, "", "glfw", "glx"):
        from mujoco import GLContext
    else:
        raise ValueError(f"MUJOCO_GL={option!r} is none of egl, osmesa, glfw")
    return GLContext


class Renderer:
    """Draws one model after another into images; the context is kept between scenes."""

    def __init__(self) -> None:
        self._gl = make_context()
        self._contexts: dict[bool, mujoco.MjrContext] = {}
        self._drawn: dict[bool, mujoco.MjModel] = {}
        self._size = (0, 0)
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
            fine: Draw shadows and smooth edges, for people; about five times slower.
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
        """Return the drawing context with this scene's textures and a large enough buffer."""
        if self._model is not model:
            self._model = model
            self._scene = mujoco.MjvScene(model, maxgeom=600)
        context = self._contexts.get(fine)
        if context is None:
            with _quality(model, fine, height, width):
                context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
            self._contexts[fine] = context
            self._drawn[fine] = model
        if self._drawn[fine] is not model:
            for texture in range(model.ntex):
                mujoco.mjr_uploadTexture(model, context, texture)
            self._drawn[fine] = model
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


class _quality:  # noqa: N801  (reads as a function)
    """Set a model's drawing quality while a context is made from it."""

    def __init__(self, model: mujoco.MjModel, fine: bool, height: int, width: int):
        self._visual = model.vis
        self._wanted = (
            height,
            width,
            4 if fine else 0,
            2048 if fine else 0,
            *((32, 20, 2) if fine else (14, 8, 1)),
        )

    def _fields(self) -> list[tuple[object, str]]:
        size, quality = self._visual.global_, self._visual.quality
        names = ("offsamples", "shadowsize", "numslices", "numstacks", "numquads")
        return [(size, "offheight"), (size, "offwidth"), *((quality, name) for name in names)]

    def __enter__(self) -> None:
        self._before = [getattr(owner, name) for owner, name in self._fields()]
        self._set(self._wanted)

    def __exit__(self, *_: object) -> None:
        self._set(self._before)

    def _set(self, values: tuple | list) -> None:
        for (owner, name), value in zip(self._fields(), values, strict=True):
            setattr(owner, name, value)
