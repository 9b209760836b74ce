"""Random kitchens: draws all varying values for (task, seed, settings) and writes the MJCF."""

import hashlib
import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import mujoco
import numpy as np

from z1_ros.sim.kitchen import fixtures as fx
from z1_ros.sim.kitchen.config import KitchenConfig
from z1_ros.sim.kitchen.materials import Look, add_materials, sample_look
from z1_ros.sim.kitchen.mjcf import Body
from z1_ros.sim.kitchen.objects import KINDS, Kind, add_object
from z1_ros.sim.kitchen.panda import READY, add_robot

TIMESTEP_S = 0.005
"""Physics step [s]; a control step of 50 ms has ten physics steps."""

# RoboCasa's base cameras (robocasa/models/robots, panda_omron): position [m] and quaternion wxyz
# in the frame of panda_link0.
_AGENTVIEW = {
    "robot0_agentview_left": ((-0.5, 0.35, 1.05), (0.5562, 0.2994, -0.3768, -0.6775)),
    "robot0_agentview_right": ((-0.5, -0.35, 1.05), (0.6775, 0.3768, -0.2994, -0.5562)),
}
VIDEO_CAMERA = "film"
"""Name of the video camera in the model. Changing it would change the hash in all scene ids."""
_UNITS = {"drawers": 0.88, "sink": 1.24, "microwave": 0.72, "stove": 0.66, "coffee": 0.52}


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Requirements of a task on the scene."""

    unit: str
    """Kitchen unit in front of the robot."""
    distance: float
    """Distance from the counter's edge to panda_link0 [m]."""
    objects: int = 0
    """Number of loose objects on the counter, next to the sink."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A scene: all values that were drawn for one seed, and the resulting model."""

    units: dict[str, float]
    """y of each unit's centre line [m], by name."""
    robot: np.ndarray
    """x, y [m] and yaw [rad] of the robot's base."""
    arm: np.ndarray
    """Initial joint angles (7,) [rad]."""
    side: str
    """``left`` or ``right``, for instructions that need a side."""
    kinds: tuple[Kind, ...]
    """Kinds of the loose objects ``object0``, ``object1``, …"""
    look: Look
    """Colours and textures."""
    xml: str
    """Model as MJCF."""

    def compile(self) -> mujoco.MjModel:
        """Compile the model and copy its textures into it."""
        model = mujoco.MjModel.from_xml_string(self.xml)
        for name, image in self.look.textures.items():
            slot = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXTURE, name)
            start = model.tex_adr[slot]
            model.tex_data[start : start + image.size] = image.ravel()
        return model

    @property
    def digest(self) -> str:
        """Hash of model and textures."""
        digest = hashlib.sha256(self.xml.encode())
        for name in sorted(self.look.textures):
            digest.update(self.look.textures[name].tobytes())
        return digest.hexdigest()


class _Draw:
    """Random numbers with ranges proportional to ``scale``."""

    def __init__(self, rng: np.random.Generator, scale: float):
        self.rng, self.scale = rng, scale

    def around(self, value: float, spread: float) -> float:
        """Return a uniform number in value ± scale · spread."""
        return value + self.scale * spread * self.rng.uniform(-1, 1)

    def choice(self, count: int) -> int:
        """Return a random index below ``count``; 0 without randomisation."""
        index = int(self.rng.integers(count))
        return index if self.scale > 0 else 0


def sample_scene(
    target: Target, seed_words: list[int], config: KitchenConfig, mobile: bool
) -> Scene:
    """Draw a random kitchen; equal arguments give equal scenes in every process."""
    rng = np.random.default_rng(seed_words)
    draw = _Draw(rng, config.randomisation)
    look = sample_look(rng, config.randomisation)
    units = _arrange(draw)
    x = -target.distance + draw.around(0, config.base_range_m / 3)
    y = units[target.unit] + draw.around(0, config.base_range_m)
    robot = np.array([x, y, draw.around(0, config.base_yaw_rad)])
    arm = np.asarray(READY) + config.randomisation * config.joint_noise_rad * rng.normal(0, 1, 7)
    side = ("left", "right")[draw.choice(2)]
    root, world = _empty_kitchen(look, draw, units[target.unit])
    _furnish(world, units, draw)
    kinds = tuple(KINDS[draw.choice(len(KINDS))] for _ in range(target.objects))
    for i, kind in enumerate(kinds):
        _place(world, f"object{i}", kind, units["sink"], draw)
    cameras = _camera_poses(config.randomisation * config.camera_jitter_m, rng)
    add_robot(world, ET.SubElement(root, "actuator"), robot, cameras, mobile)
    _video_camera(world, robot, units[target.unit])
    xml = ET.tostring(root, encoding="unicode")
    return Scene(units=units, robot=robot, arm=arm, side=side, kinds=kinds, look=look, xml=xml)


def _arrange(draw: _Draw) -> dict[str, float]:
    """Arrange the units in random order; return the y of each unit's centre line [m]."""
    order = list(_UNITS)
    if draw.scale > 0:
        order = [order[i] for i in draw.rng.permutation(len(order))]
    y, centres = sum(_UNITS.values()) / 2, {}
    for name in order:
        centres[name] = y - _UNITS[name] / 2
        y -= _UNITS[name]
    return centres


def _empty_kitchen(look: Look, draw: _Draw, focus: float) -> tuple[ET.Element, Body]:
    """Return the model's root and its world body with floor, wall, and light at y = ``focus``."""
    root = ET.Element("mujoco", model="kitchen")
    top = Body(root)
    top.add("compiler", angle="radian", autolimits=True)
    top.add("option", timestep=TIMESTEP_S, integrator="implicitfast", cone="elliptic", impratio=10)
    bare = {"density": "0", "group": "1", "contype": "0", "conaffinity": "0"}
    ET.SubElement(ET.SubElement(root, "default"), "geom", bare)
    top.add("statistic", center=(0, 0, 1), extent=2.5)
    visual = Body(ET.SubElement(root, "visual"))
    visual.add("headlight", ambient=(0.31, 0.30, 0.29), diffuse=(0.25,) * 3, specular=(0.1,) * 3)
    visual.add("map", znear=0.01, zfar=8, shadowclip=0.7)
    asset = Body(ET.SubElement(root, "asset"))
    add_materials(asset, look)
    world = Body(ET.SubElement(root, "worldbody"))
    warm, power = draw.around(0.03, 0.03), draw.around(0.44, 0.08)
    towards = np.array([draw.around(0.55, 0.25), draw.around(0.0, 0.5), -1])
    world.add("light", name="key", directional=True, castshadow=True, dir=towards,
              pos=(0, focus, 1) - 2.5 * towards, ambient=(0.1,) * 3, specular=(0.25,) * 3,
              diffuse=(power + warm, power, power - warm))  # fmt: skip
    world.block((-4, 2), (-7, 7), (-0.1, 0), "floor")
    world.panel((fx.DEPTH + 0.05, 0, 1.4), (0.05, 7, 1.4), "wall")
    return root, world


def _furnish(world: Body, units: dict[str, float], draw: _Draw) -> None:
    ends = sum(_UNITS.values()) / 2
    low, high = fx.COUNTER_Z, 1.47  # backsplash between counter and wall cabinets
    world.panel((fx.DEPTH - 0.001, 0, (low + high) / 2), (0.006, ends, (high - low) / 2), "tile",
                "fixture")  # fmt: skip
    y = units["drawers"]
    fx.drawers(world, y, _UNITS["drawers"], handle=draw.around(0.065, 0.006))
    fx.jars(world, (draw.around(0.54, 0.02), y + draw.around(0.1, 0.15)))
    fx.wall_cabinet(world, y, _UNITS["drawers"])
    _sink_unit(world, units["sink"], draw)
    y = units["microwave"]
    fx.base_cabinet(world, y, _UNITS["microwave"])
    place = (draw.around(0.20, 0.03), y + draw.around(0, 0.05))
    fx.microwave(world, place, draw.around(0.50, 0.03), draw.around(0.27, 0.02))
    fx.wall_cabinet(world, y, _UNITS["microwave"])
    fx.stove(world, units["stove"], _UNITS["stove"])
    fx.hood(world, units["stove"], _UNITS["stove"])
    y = units["coffee"]
    fx.base_cabinet(world, y, _UNITS["coffee"])
    fx.coffee_machine(world, y + draw.around(0, 0.06))
    fx.wall_cabinet(world, y, _UNITS["coffee"])


def _sink_unit(world: Body, y: float, draw: _Draw) -> None:
    width = _UNITS["sink"]
    front = draw.around(0.065, 0.01)
    back = front + draw.around(0.29, 0.015)
    lever_side = (-1, 1)[draw.choice(2)]
    basin = (front, back, draw.around(0.21, 0.02))
    fx.sink(world, y, width, basin, lever_side, draw.around(0.125, 0.015))
    fx.window(world, y, 0.8)
    fx.utensils(world, (0.54, y + lever_side * draw.around(0.48, 0.05)))
    fx.cutting_board(world, (0.60, y - lever_side * 0.44))


def _place(world: Body, name: str, kind: Kind, sink_y: float, draw: _Draw) -> None:
    """Place an object on the counter to the left or right of the sink."""
    side = (-1, 1)[draw.choice(2)]
    pos = (draw.around(0.19, 0.07), sink_y + side * draw.around(0.33, 0.05), fx.COUNTER_Z)
    yaw = draw.around(0, math.pi / 6)
    colour = kind.colours[draw.choice(len(kind.colours))]
    add_object(world, name, kind, np.asarray(pos), yaw, colour)


def _camera_poses(jitter: float, rng: np.random.Generator) -> dict:
    poses = {}
    for name, (pos, quat) in _AGENTVIEW.items():
        turned, twist = np.zeros(4), np.zeros(4)
        axis = rng.uniform(-1, 1, 3)
        mujoco.mju_axisAngle2Quat(twist, axis / np.linalg.norm(axis), jitter * rng.uniform(-1, 1))
        mujoco.mju_mulQuat(turned, twist, np.array(quat, float))
        poses[name] = (np.asarray(pos) + jitter * rng.uniform(-1, 1, 3), turned)
    return poses


def _video_camera(world: Body, robot: np.ndarray, unit_y: float) -> None:
    """Add the video camera, behind and slightly above the robot's right shoulder."""
    look = np.array([0.15 + 0.45 * (robot[0] + 0.36), unit_y + 0.05, 0.98])
    eye = np.add(look, (-1.62, -1.22, 0.80))
    back = (eye - look) / np.linalg.norm(eye - look)
    right = np.cross((0, 0, 1), back)
    right /= np.linalg.norm(right)
    axes = (*right, *np.cross(back, right))
    world.add("camera", name=VIDEO_CAMERA, pos=eye, xyaxes=axes, fovy=46)
