"""The embedded kitchen with the ``Env`` protocol."""

import hashlib
import json
import zlib
from dataclasses import asdict, replace
from typing import Any

import mujoco
import numpy as np

from z1_ros.errors import ConfigError, SeedError, closest
from z1_ros.sim.kitchen.config import KitchenConfig
from z1_ros.sim.kitchen.control import CONTROL_STEP_S, Controller
from z1_ros.sim.kitchen.panda import FINGER_TRAVEL
from z1_ros.sim.kitchen.privileged import PrivilegedState
from z1_ros.sim.kitchen.render import Renderer
from z1_ros.sim.kitchen.scene import TIMESTEP_S, VIDEO_CAMERA, Scene, sample_scene
from z1_ros.sim.kitchen.tasks import TASKS
from z1_ros.sim.snapshot import pack, require_same, unpack
from z1_ros.specs import PANDA, Embodiment, ordered_actions
from z1_ros.types import Observation, Step

_SUBSTEPS = round(CONTROL_STEP_S / TIMESTEP_S)
_STEP_NS = round(CONTROL_STEP_S * 1e9)
_INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)
SCENE_VERSION = 1
"""Version of the scenes; it is increased when equal seeds give different scenes than before."""


class KitchenEnv:
    """A kitchen of primitive shapes with RoboCasa's tasks, observations and actions.

    Call ``reset`` before all other methods. The first call that renders makes the OpenGL context,
    or raises GraphicsUnavailable; ``step`` does not need one. ``Env`` lists all other errors.
    """

    def __init__(
        self, task: str, embodiment: Embodiment = PANDA, config: KitchenConfig | None = None
    ):
        """Choose task (a RoboCasa class name), robot and settings; raises ConfigError."""
        if task not in TASKS:
            raise ConfigError(f"the kitchen has no task {task!r}. {closest(task, TASKS)}")
        self.task = task
        self.embodiment = embodiment
        self.config = config or KitchenConfig()
        self.horizon = self.config.horizon or TASKS[task].horizon
        self._mobile = any(field.name == "base_motion" for field in embodiment.action)
        self._renderer: Renderer | None = None
        self._closed = False
        self.seed = 0
        self._scene_id: str | None = None

    @property
    def instruction(self) -> str:
        """Instruction of the current scene, as text."""
        self._require_scene()
        return self.goal.instruction

    @property
    def scene_id(self) -> str:
        """Hash of task, settings, seed, versions and the resulting model."""
        return self._require_scene()

    def reset(self, seed: int) -> None:
        """Build the scene of ``seed`` and set its initial state.

        Raises:
            SeedError: The seed is negative.
        """
        if seed < 0:
            raise SeedError(f"seed {seed} is negative; seeds are 0, 1, 2, …")
        self._enter(int(seed), *self._sample(int(seed)))

    def _sample(self, seed: int) -> tuple[Scene, str]:
        """Return the scene of ``seed`` and its id: a hash of its facts, seed and model."""
        words = [zlib.crc32(self.task.encode()), seed if self.config.randomisation else 0]
        scene = sample_scene(TASKS[self.task].target, words, self.config, self._mobile)
        facts = self._facts() | {"seed": seed, "model": scene.digest}
        return scene, hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _enter(self, seed: int, scene: Scene, scene_id: str) -> None:
        """Make ``scene`` the current scene and set its initial state."""
        self.model = scene.compile()
        self.data = mujoco.MjData(self.model)
        self.goal = TASKS[self.task](self.model, scene)
        self._privileged = PrivilegedState(self.model, self.goal)
        self.controller = Controller(self.model, self.embodiment)
        self.data.qpos[self.controller.arm_qpos] = scene.arm
        self.data.qpos[self.controller.finger_qpos] = (FINGER_TRAVEL, -FINGER_TRAVEL)
        self._kinematics()
        self.controller.reset(self.data)
        self._steps, self._success = 0, False
        self.seed, self._scene_id = seed, scene_id

    def step(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim), one control step each; stop early when done."""
        self._require_scene()
        dims = self.embodiment.action_dims
        actions = ordered_actions(np.asarray(actions, np.float64), dims, ndim=2)
        actions = np.clip(actions, *self.embodiment.action_limits())
        before = self._steps
        for action in actions:
            if self._done:
                break
            self.controller.apply(self.data, action)
            mujoco.mj_step(self.model, self.data, _SUBSTEPS)
            self._kinematics()
            self._steps += 1
            self.goal.update(self.data)
            self._success = self._success or bool(self.goal.success(self.data))
        consumed = self._steps - before
        return Step(steps=self._steps, success=self._success, done=self._done, consumed=consumed)

    def read_state(self) -> Observation:
        """Read the robot's current state; ``images`` is empty."""
        self._require_scene()
        controller = self.controller
        pos, quat = controller.pose(self.data)
        state = {
            "joint_position": self.data.qpos[controller.arm_qpos],
            "end_effector_position_relative": pos,
            "end_effector_rotation_relative": quat[[1, 2, 3, 0]],
            "gripper_qpos": self.data.qpos[controller.finger_qpos],
        }
        if self._mobile:
            state["base_position"] = self.data.xpos[controller.link0]
            # A rotation has two quaternions; robosuite uses the one with w >= 0.
            turn = self.data.xquat[controller.link0]
            state["base_rotation"] = (turn if turn[0] >= 0 else -turn)[[1, 2, 3, 0]]
        return Observation(
            images={},
            state={name: np.asarray(value, np.float32) for name, value in state.items()},
            instruction=self.instruction,
            stamp_ns=self._steps * _STEP_NS,
        )

    def privileged_state(self) -> np.ndarray:
        """Return the privileged state (n,) float32 (see ``PrivilegedState``); not for policies."""
        self._require_scene()
        return self._privileged(self.data, self.controller)

    def observe(self) -> Observation:
        """Render the policy's cameras and read the robot's current state."""
        size = self.config.image_size
        images = {name: self.render(name, size, size) for name in self.embodiment.cameras}
        return replace(self.read_state(), images=images)

    def render(self, camera: str, height: int, width: int) -> np.ndarray:
        """Return the image of one camera (height, width, 3) uint8 RGB.

        The camera ``video`` is for people; policies do not use it. An unknown one is a ConfigError.
        """
        self._require_scene()
        cameras = {self.model.camera(i).name: i for i in range(self.model.ncam)}
        cameras["video"] = cameras.pop(VIDEO_CAMERA)
        if camera not in cameras:
            raise ConfigError(f"the kitchen has no camera {camera!r}. {closest(camera, cameras)}")
        if self._renderer is None:
            self._renderer = Renderer()
        mujoco.mj_camlight(self.model, self.data)
        self._show_flags()
        size, fine = (height, width), camera == "video"
        return self._renderer.render(self.model, self.data, cameras[camera], size, fine=fine)

    def snapshot(self) -> bytes:
        """Return the whole state of the simulation, from which it continues bit for bit."""
        self._require_scene()
        state = np.empty(mujoco.mj_stateSize(self.model, _INTEGRATION))
        mujoco.mj_getState(self.model, self.data, state, _INTEGRATION)
        facts = self._facts() | {
            "seed": self.seed,
            "scene_id": self._scene_id,
            "steps": self._steps,
            "success": self._success,
            "flags": self.goal.flags,
        }
        return pack(facts, {"mujoco": state, "controller": self.controller.state})

    def restore(self, data: bytes) -> None:
        """Restore a snapshot; build its scene first if it is not the current one."""
        facts, arrays = unpack(data)
        require_same(facts, self._facts())
        if self._scene_id != facts["scene_id"]:
            scene, scene_id = self._sample(facts["seed"])
            require_same(facts, {"scene_id": scene_id})
            self._enter(facts["seed"], scene, scene_id)
        # mj_forward computes data for rendering, but overwrites the solver's warm start.
        mujoco.mj_setState(self.model, self.data, arrays["mujoco"], _INTEGRATION)
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, arrays["mujoco"], _INTEGRATION)
        self.controller.state = arrays["controller"]
        self.goal.flags = dict(facts["flags"])
        self._steps, self._success = facts["steps"], facts["success"]

    def close(self) -> None:
        """Free the OpenGL context; further calls raise errors."""
        self._scene_id = None
        self._closed = True
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    @property
    def _done(self) -> bool:
        return self._success or self._steps >= self.horizon

    def _kinematics(self) -> None:
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)

    def _show_flags(self) -> None:
        """Set the colours of water and microwave screen from the task's flags."""
        water, screen = self.model.geom("water").id, self.model.geom("microwave_screen").id
        self.model.geom_rgba[water] = (0.55, 0.78, 0.95, 0.6 if self.goal.flags.get("water") else 0)
        lit = self.goal.flags.get("microwave", False)
        self.model.geom_rgba[screen] = (0.25, 0.95, 0.55, 1) if lit else (0.05, 0.10, 0.10, 1)

    def _facts(self) -> dict[str, Any]:
        """Return the facts that must be equal to restore a snapshot."""
        return {
            "backend": "kitchen",
            "version": SCENE_VERSION,
            "mujoco": mujoco.__version__,
            "task": self.task,
            "embodiment": self.embodiment.name,
            "config": asdict(self.config),
        }

    def _require_scene(self) -> str:
        """Return the current scene's hash; raises ConfigError if there is none."""
        if self._scene_id is None:
            missing = "it is closed" if self._closed else "call reset(seed) first"
            raise ConfigError(f"the kitchen has no scene: {missing}")
        return self._scene_id
