"""Franka's Panda on a mobile base, without meshes.

Kinematics, joint ranges and torque limits are those published by Franka Emika (modified DH table in
the "Franka Control Interface" documentation). Link inertias are those identified by Gaz et al.
2019, "Dynamic Identification of the Franka Emika Panda Robot", as in
mujoco_menagerie/franka_emika_panda/panda.xml. Gravity is compensated, as in the real arm. The base
has the joints of robosuite's PandaOmron: two slides, yaw, torso lift.
"""

import math
import xml.etree.ElementTree as ET

import numpy as np

from z1_ros.sim.kitchen.mjcf import Body

ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
BASE_JOINTS = ("base_forward", "base_side", "base_yaw", "base_torso")
READY = (0.0, -0.5, 0.0, -2.6, 0.0, 2.6, math.pi / 4)
"""Initial joint angles [rad]: the hand is above the counter's edge, tilted forward by 0.5 rad."""
BASE_HEIGHT = 0.72
"""Height of panda_link0 above the floor [m]."""
FINGER_TRAVEL = 0.04
"""Travel of each finger [m]."""
GRIP = "grip"
"""Name of the end-effector site, between the finger pads."""

_QUARTER = math.sqrt(0.5)
# Parent to child: translation [m], rotation about x in quarter turns, range [rad],
# mass [kg], centre of mass [m], inertia xx yy zz xy xz yz [kg m^2].
_LINKS = (
    ((0, 0, 0.333), 0, (-2.8973, 2.8973), 4.970684, (0.003875, 0.002081, -0.04762),
     (0.70337, 0.70661, 0.0091170, -0.0001390, 0.0067720, 0.019169)),
    ((0, 0, 0), -1, (-1.7628, 1.7628), 0.646926, (-0.003141, -0.02872, 0.003495),
     (0.0079620, 0.028110, 0.025995, -0.003925, 0.010254, 0.000704)),
    ((0, -0.316, 0), 1, (-2.8973, 2.8973), 3.228604, (0.027518, 0.039252, -0.066502),
     (0.037242, 0.036155, 0.010830, -0.004761, -0.011396, -0.012805)),
    ((0.0825, 0, 0), 1, (-3.0718, -0.0698), 3.587895, (-0.05317, 0.104419, 0.027454),
     (0.025853, 0.019552, 0.028323, 0.007796, -0.001332, 0.008641)),
    ((-0.0825, 0.384, 0), -1, (-2.8973, 2.8973), 1.225946, (-0.011953, 0.041065, -0.038437),
     (0.035549, 0.029474, 0.008627, -0.002117, -0.004037, 0.000229)),
    ((0, 0, 0), 1, (-0.0175, 3.7525), 1.666555, (0.060149, -0.014117, -0.010517),
     (0.001964, 0.004354, 0.005433, 0.000109, -0.001158, 0.000341)),
    ((0.088, 0, 0), 1, (-2.8973, 2.8973), 0.735522, (0.010517, -0.004252, 0.061597),
     (0.012516, 0.010027, 0.004815, -0.000428, -0.001196, -0.000741)),
)  # fmt: skip
_TORQUE = (87, 87, 87, 87, 12, 12, 12)  # [N m]
_KP = (1200, 1200, 1000, 1000, 300, 300, 200)  # [N m / rad]
_KV = (120, 120, 90, 80, 20, 18, 12)  # [N m s / rad]


def add_robot(
    world: Body, actuators: ET.Element, pose: np.ndarray, cameras: dict, mobile: bool
) -> None:
    """Add base, arm, hand and cameras, and to ``actuators`` the servos of their joints.

    Args:
        world: World body.
        actuators: The model's ``actuator`` element.
        pose: x, y [m] and yaw [rad] of the base on the floor.
        cameras: (position, quaternion wxyz) of the cameras fixed to panda_link0, by name.
        mobile: Whether the base has its four joints; without them it is fixed.
    """
    x, y, yaw = pose
    turn = (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))
    base = world.body("base", (x, y, 0), quat=turn)
    _chassis(base)
    torso = base.body("torso", gravcomp=1)
    if mobile:
        base.joint("base_forward", "slide", (1, 0, 0), damping=100)
        base.joint("base_side", "slide", (0, 1, 0), damping=100)
        base.joint("base_yaw", "hinge", (0, 0, 1), damping=50)
        torso.joint("base_torso", "slide", (0, 0, 1), range=(0, 0.35), damping=100)
    torso.add("inertial", pos=(0, 0, 0.5), mass=20, diaginertia=(0.6, 0.6, 0.3))
    torso.rod((0, 0, 0.35), (0, 0, 0.69), 0.075, "robot_dark")
    torso.box((0, 0, 0.695), (0.13, 0.11, 0.025), "robot_dark")
    link = torso.body("panda_link0", (0, 0, BASE_HEIGHT), gravcomp=1)
    link.add("inertial", pos=(-0.041, 0, 0.05), mass=0.63, diaginertia=(0.0032, 0.0039, 0.0043))
    for name, (pos, quat) in cameras.items():
        link.add("camera", name=name, pos=pos, quat=quat, fovy=50)
    _shell(link, 0)
    for i, (pos, turns, limits, mass, com, inertia) in enumerate(_LINKS, start=1):
        quat = (1, 0, 0, 0) if turns == 0 else (_QUARTER, turns * _QUARTER, 0, 0)
        link = link.body(f"panda_link{i}", pos, quat=quat, gravcomp=1)
        link.add("inertial", pos=com, mass=mass, fullinertia=inertia)
        link.joint(f"panda_joint{i}", "hinge", (0, 0, 1), range=limits, damping=1, armature=0.1)
        _shell(link, i)
    _hand(link)
    _servos(actuators, mobile)


def _chassis(base: Body) -> None:
    base.add("inertial", pos=(0, 0, 0.15), mass=80, diaginertia=(4, 4, 6))
    base.box((-0.20, 0, 0.185), (0.30, 0.25, 0.11), "robot_white")
    base.box((-0.20, 0, 0.06), (0.27, 0.22, 0.045), "robot_dark")
    base.box((-0.20, 0, 0.235), (0.302, 0.252, 0.012), "robot_accent")
    base.rod((0, 0, 0.29), (0, 0, 0.42), 0.105, "robot_white")


# Capsules (start, end, radius, material, contact) along the links; radii and positions are
# similar to the collision capsules of franka_description.
_SHELL = (
    (((-0.09, 0, 0.05), (0.02, 0, 0.05), 0.075, "robot_white", None),
     ((0, 0, 0.06), (0, 0, 0.13), 0.072, "robot_white", None)),
    (((0, 0, -0.20), (0, 0, -0.045), 0.06, "robot_white", None),
     ((0, -0.045, 0), (0, 0.075, 0), 0.06, "robot_white", None)),
    (((0, 0, -0.055), (0, 0, 0.055), 0.061, "robot_joint", None),
     ((0, -0.06, 0), (0, -0.17, 0), 0.06, "robot_white", None)),
    (((0, 0, -0.14), (0, 0, -0.055), 0.06, "robot_white", None),
     ((0.0825, -0.01, 0), (0.0825, 0.05, 0), 0.058, "robot_white", None)),
    (((0, 0, -0.055), (0, 0, 0.055), 0.059, "robot_joint", None),
     ((-0.0825, 0.06, 0), (-0.0825, 0.13, 0), 0.058, "robot_white", "robot")),
    (((0, 0, -0.26), (0, 0.02, -0.19), 0.058, "robot_white", "robot"),
     ((0, 0.075, -0.19), (0, 0.082, -0.02), 0.027, "robot_white", None),
     ((0, 0.01, 0), (0, 0.085, 0), 0.05, "robot_white", "robot")),
    (((0, 0, -0.05), (0, 0, 0.045), 0.049, "robot_joint", None),
     ((0.088, -0.03, 0), (0.088, 0.02, 0), 0.047, "robot_white", "robot")),
    (((0, 0, 0.02), (0, 0, 0.075), 0.043, "robot_white", "robot"),
     ((0, 0, 0.09), (0, 0, 0.105), 0.036, "robot_joint", None)),
)  # fmt: skip


def _shell(link: Body, index: int) -> None:
    for start, end, radius, material, contact in _SHELL[index]:
        link.rod(start, end, radius, material, contact, kind="capsule")


def _hand(flange: Body) -> None:
    """Add the hand, rotated by 45° about z; fingers move along y, the camera is above them."""
    turn = (math.cos(math.pi / 8), 0, 0, -math.sin(math.pi / 8))
    hand = flange.body("panda_hand", (0, 0, 0.107), quat=turn, gravcomp=1)
    hand.add("inertial", pos=(-0.01, 0, 0.03), mass=0.73, diaginertia=(0.001, 0.0025, 0.0017))
    hand.box((0, 0, 0.033), (0.022, 0.100, 0.033), "robot_white", "robot")
    hand.box((0, 0, 0.064), (0.017, 0.092, 0.004), "robot_joint")
    hand.box((0.045, 0, -0.012), (0.025, 0.03, 0.010), "robot_dark")
    hand.add("camera", name="robot0_eye_in_hand", pos=(0.075, 0, 0),
             xyaxes=(0, 1, 0, math.cos(0.2), 0, math.sin(0.2)), fovy=75)  # fmt: skip
    hand.site(GRIP, (0, 0, 0.1034))
    for name, sign in zip(FINGER_JOINTS, (1, -1), strict=True):
        travel = sorted((0, sign * FINGER_TRAVEL))
        finger = hand.body(name.replace("_joint", ""), (0, 0, 0.0584), gravcomp=1)
        finger.add("inertial", pos=(0, 0, 0.02), mass=0.06, diaginertia=(3e-5, 3e-5, 1e-5))
        finger.joint(name, "slide", (0, 1, 0), range=travel, damping=20, armature=0.3)
        finger.box((0, sign * 0.014, 0.016), (0.010, 0.009, 0.018), "robot_joint")
        pad = {"friction": (2, 0.05, 0.0001), "condim": 4, "solref": (0.012, 1), "priority": 1}
        finger.box((0, sign * 0.0085, 0.040), (0.010, 0.0085, 0.017), "finger", "robot", **pad)


def _servos(actuators: ET.Element, mobile: bool) -> None:
    servo = Body(actuators)
    for joint, kp, kv, torque in zip(ARM_JOINTS, _KP, _KV, _TORQUE, strict=True):
        servo.add("position", name=joint, joint=joint, kp=kp, kv=kv, forcerange=(-torque, torque))
    for joint in FINGER_JOINTS:
        servo.add("position", name=joint, joint=joint, kp=1000, kv=40, forcerange=(-25, 25))
    if mobile:
        gains = ((1e5, 7e3), (1e5, 7e3), (3e4, 1500), (4e4, 3e3))
        for joint, (stiffness, damping) in zip(BASE_JOINTS, gains, strict=True):
            servo.add("position", name=joint, joint=joint, kp=stiffness, kv=damping)
