"""Conversion between NumPy values and standard ROS messages; values are matched by name.

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
from std_msgs.msg import Header

from z1_ros.errors import ActionError, ConfigError, ObservationError, closest
from z1_ros.specs import Embodiment, Field

ORIGIN = "origin_ns="

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseTopic:
    """Two state fields that are sent as one ``PoseStamped``."""

    topic: str
    """Topic name."""
    frame: str
    """``frame_id``: reference frame of the pose."""
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
"""Pose of ``panda_link0`` in the world frame (``map`` in REP 105)."""
_POSES = (EEF_POSE, BASE_POSE)


def to_stamp(ns: int) -> Time:
    """Convert nanoseconds to a message stamp, without rounding."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def to_ns(stamp: Time) -> int:
    """Convert a message stamp to nanoseconds, without rounding."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def _header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=to_stamp(stamp_ns), frame_id=frame_id)


def image_message(image: np.ndarray, camera: str, stamp_ns: int) -> Image:
    """Return the ``rgb8`` message of a (height, width, 3) uint8 RGB image."""
    return Image(
        header=_header(stamp_ns, f"{camera}_optical_frame"),
        height=image.shape[0],
        width=image.shape[1],
        encoding="rgb8",
        step=3 * image.shape[1],
        data=image.tobytes(),
    )


def image_view(message: Image, camera: str) -> np.ndarray:
    """Return a message's pixels (height, width, channels) uint8, in its own order, not copied.

    Raises:
        ObservationError: The encoding is unknown, or there are fewer bytes than claimed.
    """
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
    rows = np.frombuffer(message.data, np.uint8)[: height * step].reshape(height, step)
    return rows[:, : channels * width].reshape(height, width, channels)


def image_array(message: Image, camera: str) -> np.ndarray:
    """Return a message's image (height, width, 3) uint8 RGB; raises as ``image_view`` does."""
    pixels = image_view(message, camera)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    rgb = pixels[..., 2::-1] if message.encoding.startswith("bgr") else pixels[..., :3]
    return np.ascontiguousarray(rgb)


def check_state_sources(robot: Embodiment) -> None:
    """Raise ConfigError if no topic carries one of the robot's state fields."""
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
    """Return the joint states of arm and fingers; ``frame_id`` is the episode's start stamp."""
    return JointState(
        header=_header(stamp_ns, f"{ORIGIN}{origin_ns}"),
        name=[*robot.joint_names, *robot.gripper_joint_names],
        position=[*state["joint_position"].tolist(), *state["gripper_qpos"].tolist()],
    )


def origin_of(frame_id: str) -> int:
    """Return the start stamp of the episode [ns]; 0 if the message has none (a real robot)."""
    number = frame_id.removeprefix(ORIGIN)
    known = frame_id.startswith(ORIGIN) and number.isdecimal() and len(number) < 20
    return int(number) if known else 0


def read_joint_states(message: JointState, robot: Embodiment) -> dict[str, np.ndarray]:
    """Return the joint fields of the state, by joint name; raises ObservationError."""
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
        if not np.isfinite(state[name]).all():
            bad = next(joint for joint in joints if not np.isfinite(by_name[joint]))
            raise ObservationError(f"joint_states says that {bad} is at {by_name[bad]}")
    return state


def pose_topics(fields: tuple[Field, ...]) -> tuple[PoseTopic, ...]:
    """Return the pose topics that carry any of the state's ``fields``."""
    names = {field.name for field in fields}
    return tuple(pose for pose in _POSES if names & {pose.position, pose.rotation})


def pose_message(state: Mapping[str, np.ndarray], pose: PoseTopic, stamp_ns: int) -> PoseStamped:
    """Return the message of one pose of the state."""
    message = PoseStamped(header=_header(stamp_ns, pose.frame))
    p, q = message.pose.position, message.pose.orientation
    p.x, p.y, p.z = state[pose.position].tolist()
    q.x, q.y, q.z, q.w = state[pose.rotation].tolist()
    return message


def read_pose(message: PoseStamped, pose: PoseTopic) -> dict[str, np.ndarray]:
    """Return the state fields of a pose: position (3,) [m], quaternion xyzw (4,).

    Raises:
        ObservationError: The pose is given in another frame.
    """
    if message.header.frame_id != pose.frame:
        raise ObservationError(
            f"{pose.topic} is in frame {message.header.frame_id!r}, expected {pose.frame!r}"
        )
    p, q = message.pose.position, message.pose.orientation
    return {
        pose.position: np.asarray([p.x, p.y, p.z], np.float32),
        pose.rotation: np.asarray([q.x, q.y, q.z, q.w], np.float32),
    }


def action_message(
    action: np.ndarray, dims: tuple[str, ...], stamp_ns: int, frame_id: str = ""
) -> JointState:
    """Return the message of an action (action_dim,) with named dimensions.

    ``stamp_ns`` is the stamp of the observation that caused the action, and ``frame_id`` that of
    its joint states, which identifies the episode.
    """
    return JointState(
        header=_header(stamp_ns, frame_id),
        name=list(dims),
        position=action.astype(np.float64).tolist(),
    )


def read_action(message: JointState) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the values (n,) float32 and the names; raises ActionError if they differ in number."""
    if len(message.name) != len(message.position):
        raise ActionError(
            f"action has {len(message.name)} names and {len(message.position)} values"
        )
    return np.asarray(message.position, np.float32), tuple(message.name)


def status_message(
    name: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Return a status message; bools and numbers are converted to text."""
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id="z1_ros", values=pairs
    )


def status_values(message: DiagnosticStatus) -> dict[str, str]:
    """Return the key-value pairs of a status message."""
    return {pair.key: pair.value for pair in message.values}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
