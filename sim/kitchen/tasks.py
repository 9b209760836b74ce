"""The tasks: instructions and success conditions.

Class names, instructions and success conditions are those of RoboCasa v0.2
(robocasa/environments/kitchen/single_stage). Success rates in this kitchen cannot be compared with
those in RoboCasa.
"""

from abc import ABC, abstractmethod

import mujoco
import numpy as np

from z1_ros.sim.kitchen.panda import GRIP
from z1_ros.sim.kitchen.scene import Scene, Target


class Task(ABC):
    """One task in one scene. Its only state is ``flags``, which snapshots contain."""

    target: Target
    """Requirements of the task on the scene."""
    horizon = 300
    """Control steps after which an episode is over."""
    template: str
    """Instruction in RoboCasa's words; ``{side}`` and ``{object}`` are those of the scene."""
    instruction_patterns: tuple[str, ...]
    """Shell-style patterns that match the task's instructions, and those of no other task."""
    landmarks: tuple[str, ...] = ()
    """Sites that are relevant to the task; they are part of the privileged state."""
    joints: tuple[str, ...] = ()
    """One-dimensional joints that are relevant to the task; part of the privileged state."""

    def __init_subclass__(cls) -> None:
        cls.instruction_patterns = (cls.template.format(side="*", object="*"),)

    def __init__(self, model: mujoco.MjModel, scene: Scene):
        self.model, self.scene = model, scene
        self.flags: dict[str, bool] = {}
        self.instruction = self.template.format(
            side=scene.side, object=scene.kinds[0].name if scene.kinds else ""
        )

    def update(self, data: mujoco.MjData) -> None:  # noqa: B027 - most tasks have no flags
        """Update the flags after a control step."""

    @abstractmethod
    def success(self, data: mujoco.MjData) -> bool:
        """Return whether the success condition is true now; kinematics must be up to date."""

    def site(self, data: mujoco.MjData, name: str) -> np.ndarray:
        """Return a site's position (3,) [m] in the world."""
        return data.site_xpos[self.model.site(name).id]

    def joint(self, data: mujoco.MjData, name: str) -> float:
        """Return a joint's position [m or rad]."""
        return float(data.qpos[self.model.joint(name).qposadr[0]])

    def far(self, data: mujoco.MjData, point: np.ndarray, distance: float) -> bool:
        """Return whether the gripper is more than ``distance`` [m] away from a point (3,) [m]."""
        return float(np.linalg.norm(self.site(data, GRIP) - point)) > distance


class OpenDrawer(Task):
    """Pull one of two drawers open."""

    target = Target(unit="drawers", distance=0.80)
    template = "open the {side} drawer"

    def __init__(self, model: mujoco.MjModel, scene: Scene):
        super().__init__(model, scene)
        self.joint_name = f"drawer_{scene.side}"
        self.landmarks, self.joints = (f"{self.joint_name}_handle",), (self.joint_name,)

    def success(self, data: mujoco.MjData) -> bool:
        """Return whether the drawer is open by at least 95 % of its travel."""
        low, high = self.model.joint(self.joint_name).range
        return (self.joint(data, self.joint_name) - low) / (high - low) >= 0.95


class TurnOnSinkFaucet(Task):
    """Push the faucet's lever back."""

    target = Target(unit="sink", distance=0.36)
    template = "turn on the sink faucet"
    landmarks, joints = ("faucet_lever",), ("faucet_handle",)

    def update(self, data: mujoco.MjData) -> None:
        """Set the flag for running water while the handle is open."""
        self.flags["water"] = self.success(data)

    def success(self, data: mujoco.MjData) -> bool:
        """Return whether the handle's angle is between 0.40 rad and π."""
        return 0.40 < self.joint(data, "faucet_handle") < np.pi


class TurnOnMicrowave(Task):
    """Press the microwave's start button and move back."""

    target = Target(unit="microwave", distance=0.56)
    template = "press the start button on the microwave"
    landmarks, joints = ("microwave_start",), ("microwave_start",)

    def __init__(self, model: mujoco.MjModel, scene: Scene):
        super().__init__(model, scene)
        self.flags = {"microwave": False}

    def update(self, data: mujoco.MjData) -> None:
        """Switch the microwave on or off if a button is pressed by more than half its travel."""
        for button, on in (("microwave_start", True), ("microwave_stop", False)):
            if self.joint(data, button) > 0.5 * self.model.joint(button).range[1]:
                self.flags["microwave"] = on

    def success(self, data: mujoco.MjData) -> bool:
        """Return whether it is on and the gripper is more than 0.15 m away from the button."""
        return self.flags["microwave"] and self.far(data, self.site(data, "microwave_start"), 0.15)


class PnPCounterToSink(Task):
    """Carry an object from the counter into the sink."""

    target = Target(unit="sink", distance=0.36, objects=1)
    template = "pick the {object} from the counter and place it in the sink"
    landmarks = ("sink_inside",)

    def success(self, data: mujoco.MjData) -> bool:
        """Return whether the object is in the sink and the gripper more than 0.25 m away."""
        centre = data.xpos[self.model.body("object0").id]
        site = self.model.site("sink_inside").id
        inside = np.all(np.abs(centre - data.site_xpos[site]) < self.model.site_size[site])
        return bool(inside) and self.far(data, centre, 0.25)


TASKS: dict[str, type[Task]] = {
    task.__name__: task
    for task in (OpenDrawer, TurnOnSinkFaucet, TurnOnMicrowave, PnPCounterToSink)
}
"""Every task by its RoboCasa class name."""
