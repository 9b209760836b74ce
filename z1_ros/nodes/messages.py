"""NumPy values to standard ROS messages and back; names, not positions, say what is what.

An image's bytes are assigned with ``tobytes()``: assigning an array takes 26 ms for 224 x 224
(rclpy issue 763), and reading uses ``np.frombuffer`` without a copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState

from z1_ros.errors import ActionError, ConfigError, ObservationError, closest
from z1_ros.specs import Embodiment, Field

ORIGIN = "origin_ns="

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseTopic:
    """Two fields of the state that travel as one ``PoseStamped``."""

    topic: str
    """Topic name."""
    frame: str
    """``frame_id``: what the pose is relative to."""
    position: str
    """State field with x, y, z [m]."""
    rotation: str
    """State field with the quaternion xyzw."""


EEF_POSE = PoseTopic(
    topic="eef_pose",
    frame="panda_link0",
    position="end_effector_position_relative",
    rotation="end_effector_rotation_relative",
)
BASE_POSE = PoseTopic(
    topic="base_pose", frame="map", position="base_position", rotation="base_rotation"
)
"""Where ``panda_link0`` is in the world, REP 105's ``map``."""
_POSES = (EEF_POSE, BASE_POSE)


def to_stamp(ns: int) -> Time:
    """Return nanoseconds as a message stamp, exactly."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def to_ns(stamp: Time) -> int:
    """Return a message stamp in nanoseconds, exactly."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def image_message(image: np.ndarray, camera: str, stamp_ns: int) -> Image:
    """Return an (height, width, 3) uint8 RGB image as ``rgb8``."""
    message = Image(
        height=image.shape[0],
        width=image.shape[1],
        encoding="rgb8",
        step=3 * image.shape[1],
        data=image.tobytes(),
    )
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = f"{camera}_optical_frame"
    return message


def check_image(message: Image, camera: str) -> None:
    """Raise ObservationError for an unknown encoding, or fewer bytes than the message claims."""
    channels = _CHANNELS.get(message.encoding)
    if channels is None:
        raise ObservationError(
            f"camera {camera!r} sends encoding {message.encoding!r}. "
            f"{closest(message.encoding, _CHANNELS)}"
        )
    height, width, step = message.height, message.width, message.step
    if not height or step < channels * width or len(message.data) < height * step:
        raise ObservationError(
            f"camera {camera!r} sends {len(message.data)} bytes with step {step} for "
            f"{height} x {width} {message.encoding}, expected {height * channels * width}"
        )


def image_array(message: Image, camera: str) -> np.ndarray:
    """Return a message's image (height, width, 3) uint8 RGB.

    Raises:
        ObservationError: As ``check_image``.
    """
    check_image(message, camera)
    channels = _CHANNELS[message.encoding]
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, np.uint8)
    rows = data[: height * step].reshape(height, step)[:, : channels * width]
    pixels = rows.reshape(height, width, channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    rgb = pixels[..., 2::-1] if message.encoding.startswith("bgr") else pixels[..., :3]
    return np.ascontiguousarray(rgb)


def check_state_sources(robot: Embodiment) -> None:
    """Raise ConfigError if a state field has no topic that carries it."""
    known = {"joint_position", "gripper_qpos"}
    known |= {name for pose in _POSES for name in (pose.position, pose.rotation)}
    for state_field in robot.state:
        if state_field.name not in known:
            raise ConfigError(
                f"no topic carries state field {state_field.name!r} of robot {robot.name!r}. "
                f"{closest(state_field.name, known)}"
            )


def joint_states_message(
    state: Mapping[str, np.ndarray], robot: Embodiment, stamp_ns: int, origin_ns: int
) -> JointState:
    """Return arm and finger joints; ``frame_id`` carries the stamp at which the episode began."""
    message = JointState(
        name=[*robot.joint_names, *robot.gripper_joint_names],
        position=[*state["joint_position"].tolist(), *state["gripper_qpos"].tolist()],
    )
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = f"{ORIGIN}{origin_ns}"
    return message


def origin_of(frame_id: str) -> int:
    """Return the stamp at which the episode began [ns]; 0 where nobody says (a real robot)."""
    number = frame_id.removeprefix(ORIGIN)
    return int(number) if frame_id.startswith(ORIGIN) and number.isdecimal() else 0


def read_joint_states(message: JointState, robot: Embodiment) -> dict[str, np.ndarray]:
    """Return the joint fields of the state, matched by joint name.

    Raises:
        ObservationError: A joint is missing, or names and positions differ in number.
    """
    if len(message.name) != len(message.position):
        raise ObservationError(
            f"joint_states has {len(message.name)} names and {len(message.position)} positions"
        )
    by_name = dict(zip(message.name, message.position, strict=True))
    state = {}
    for name, joints in (
        ("joint_position", robot.joint_names),
        ("gripper_qpos", robot.gripper_joint_names),
    ):
        missing = [joint for joint in joints if joint not in by_name]
        if missing:
            raise ObservationError(
                f"joint_states lacks joint {missing[0]!r}. {closest(missing[0], by_name)}"
            )
        state[name] = np.asarray([by_name[joint] for joint in joints], np.float32)
    return state


def pose_topics(fields: tuple[Field, ...]) -> tuple[PoseTopic, ...]:
    """Return the poses that carry any of the state's ``fields``."""
    names = {field.name for field in fields}
    return tuple(pose for pose in _POSES if names & {pose.position, pose.rotation})


def pose_message(state: Mapping[str, np.ndarray], pose: PoseTopic, stamp_ns: int) -> PoseStamped:
    """Return one of the state's poses."""
    message = PoseStamped()
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = pose.frame
    p, q = message.pose.position, message.pose.orientation
    p.x, p.y, p.z = state[pose.position].tolist()
    q.x, q.y, q.z, q.w = state[pose.rotation].tolist()
    return message


def read_pose(message: PoseStamped, pose: PoseTopic) -> dict[str, np.ndarray]:
    """Return a pose's fields of the state: position (3,) [m], quaternion xyzw (4,)."""
    p, q = message.pose.position, message.pose.orientation
    return {
        pose.position: np.asarray([p.x, p.y, p.z], np.float32),
        pose.rotation: np.asarray([q.x, q.y, q.z, q.w], np.float32),
    }


def action_message(
    action: np.ndarray, dims: tuple[str, ...], stamp_ns: int, frame_id: str = ""
) -> JointState:
    """Return an action with named dimensions.

    Args:
        action: (action_dim,) values.
        dims: Their names.
        stamp_ns: Stamp of the observation that caused it [ns].
        frame_id: That of the joint states that caused it: says which episode it belongs to.
    """
    message = JointState(name=list(dims), position=action.astype(np.float64).tolist())
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    return message


def read_action(message: JointState) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return an action's values (n,) float32 and the names of its dimensions.

    Raises:
        ActionError: Names and values differ in number.
    """
    if len(message.name) != len(message.position):
        raise ActionError(
            f"action has {len(message.name)} names and {len(message.position)} values"
        )
    return np.asarray(message.position, np.float32), tuple(message.name)


def status_message(
    name: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Return a status; bools and numbers become text."""
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id="z1_ros", values=pairs
    )


def status_values(message: DiagnosticStatus) -> dict[str, str]:
    """Return a status's key-value pairs."""
    return {pair.key: pair.value for pair in message.values}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
