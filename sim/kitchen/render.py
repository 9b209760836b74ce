"""Off-screen rendering with MuJoCo's OpenGL renderer."""

import mujoco
import numpy as np

from z1_ros.errors import GraphicsUnavailable
from z1_ros.sim.opengl import explain, make_context

_FAST = {"offsamples": 0, "shadowsize": 0, "numslices": 14, "numstacks": 8, "numquads": 1}
_FINE = {"offsamples": 4, "shadowsize": 1024, "numslices": 16, "numstacks": 8, "numquads": 1}


class Renderer:
    """Renders images of models; the OpenGL context is reused for all scenes."""

    def __init__(self) -> None:
        self._gl = make_context()
        self._contexts: dict[bool, mujoco.MjrContext] = {}
        self._rendered: dict[bool, mujoco.MjModel] = {}
        self._scene: mujoco.MjvScene  # scene of ``_model``
        self._model: mujoco.MjModel | None = None
        self._option = mujoco.MjvOption()
        self._option.geomgroup[3] = 0
        self._option.sitegroup[4] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def render(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: int, size: tuple[int, int], *,
        fine: bool,
    ) -> np.ndarray:  # fmt: skip
        """Return the upright image of one camera (height, width, 3) uint8 RGB.

        Kinematics, cameras and lights in ``data`` must be up to date. A ``fine`` image is for
        people: it has shadows and smooth edges, and takes about five times as long.
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
        """Return a rendering context with the model's textures and a buffer of sufficient size."""
        if self._model is not model:
            self._model = model
            self._scene = mujoco.MjvScene(model, maxgeom=600)
        context = self._contexts.get(fine)
        if context is None:
            context = self._contexts[fine] = _rendering_context(model, fine)
        elif self._rendered[fine] is not model:
            for texture in range(model.ntex):
                mujoco.mjr_uploadTexture(model, context, texture)
        self._rendered[fine] = model
        wide, high = max(context.offWidth, width), max(context.offHeight, height)
        if (wide, high) != (context.offWidth, context.offHeight):
            mujoco.mjr_resizeOffscreen(wide, high, context)
        return context

    def close(self) -> None:
        """Free the contexts."""
        for context in self._contexts.values():
            context.free()
        self._contexts.clear()
        self._gl.free()


def _rendering_context(model: mujoco.MjModel, fine: bool) -> mujoco.MjrContext:
    """Make a rendering context; ``fine`` enables shadows and smooth edges."""
    for name, value in (_FINE if fine else _FAST).items():
        setattr(model.vis.quality, name, value)
    try:
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except mujoco.FatalError as error:
        raise GraphicsUnavailable(explain(f"OpenGL: {str(error).split(',')[0]}")) from error
