"""The topics of the graph: inputs of a policy and outputs of a simulated robot."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from z1_ros.errors import ConfigError, ObservationError
from z1_ros.nodes.configs import PolicyNodeConfig, SimBridgeConfig
from z1_ros.nodes.messages import (
    image_array,
    image_message,
    image_view,
    joint_states_message,
    origin_of,
    pose_message,
    pose_topics,
    read_joint_states,
    read_pose,
    to_ns,
    to_stamp,
)
from z1_ros.nodes.qos import LATCHED, SENSOR, FollowingSubscription, now_ns
from z1_ros.runtime.clock import Clock
from z1_ros.runtime.plausible import ImageWatch, StampWatch, StateWatch, state_limits
from z1_ros.sim.env import Env, RenderedEnv
from z1_ros.specs import Contract, Embodiment
from z1_ros.types import Observation

JOINTS = "joint_states"


@dataclass(slots=True)
class Source:
    """One subscribed topic."""

    label: str
    """Name in messages, e.g. ``camera 'wrist'``."""
    topic: str
    """Resolved topic name."""
    subscription: FollowingSubscription
    stamps: StampWatch = field(default_factory=StampWatch)
    """Stamps of the messages so far."""
    message: Any = None
    """Latest message."""
    arrived_s: float = 0.0
    """Arrival time of the latest message, on the steady clock [s]."""

    @property
    def stamp_ns(self) -> int:
        """Stamp of the latest message [ns]."""
        return to_ns(self.message.header.stamp)


class Inputs:
    """Subscriptions of a policy; keeps the latest message of each."""

    def __init__(
        self,
        node: Node,
        contract: Contract,
        robot: Embodiment,
        config: PolicyNodeConfig,
        clock: Clock,
        on_message: Callable[[str], None],
    ):
        """Subscribe to joint states and to the cameras and poses that the model uses.

        Args:
            node: Owner of the subscriptions.
            contract: Contract with the cameras and state fields that the model uses.
            robot: Robot with the joint names.
            config: Parameters with maximum ages, skew and quality of service.
            clock: Steady clock for ages.
            on_message: Function called with the source's key after each message.
        """
        self._node = node
        self._robot = robot
        self._contract = contract
        self._steady = clock
        self._on_message = on_message
        self._poses = pose_topics(contract.state)
        # In lockstep the publisher is sim_bridge_node, which is RELIABLE; a lost message would
        # cost a resend.
        policy = "reliable" if config.mode == "lockstep" else config.qos
        poses = [pose.topic for pose in self._poses]
        self.sources: dict[str, Source] = {}
        for key, label, topic, kind in (
            (JOINTS, JOINTS, JOINTS, JointState),
            *((t, t, t, PoseStamped) for t in poses),
            *((c, f"camera {c!r}", f"camera/{c}/image", Image) for c in contract.cameras),
        ):
            heard = FollowingSubscription(node, kind, topic, partial(self._receive, key), policy)
            self.sources[key] = Source(label, node.resolve_topic_name(topic), heard)
        self.limit(config)
        self.new_episode()

    def limit(self, config: PolicyNodeConfig) -> None:
        """Apply the limits on ages, stamps and skew of ``config``."""
        self._config = config
        for key, source in self.sources.items():
            camera = key in self._contract.cameras
            source.stamps.max_age_s = config.camera_max_age_s if camera else config.state_max_age_s
            source.stamps.max_ahead_s = config.max_ahead_s

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the latest joint states [ns], or None before the first."""
        joints = self.sources[JOINTS]
        return None if joints.message is None else joints.stamp_ns

    @property
    def frame_id(self) -> str:
        """``frame_id`` of the latest joint states; identifies the episode of a simulator."""
        message = self.sources[JOINTS].message
        return "" if message is None else message.header.frame_id

    def clear(self) -> None:
        """Forget all messages."""
        for source in self.sources.values():
            source.message = None
            source.stamps.clear()
        self.new_episode()

    def new_episode(self) -> None:
        """Forget where the robot was and how large the images were."""
        self._state = StateWatch(state_limits(self._robot.joint_names))
        self._images = {camera: ImageWatch() for camera in self._contract.cameras}

    def destroy(self) -> None:
        """Unsubscribe."""
        for source in self.sources.values():
            source.subscription.destroy()

    def ages_s(self) -> Mapping[str, float]:
        """Return the age [s] of the latest message of each source; inf if there is none."""
        now_s = self._steady.now_s()
        return {
            key: float("inf") if s.message is None else now_s - s.arrived_s
            for key, s in self.sources.items()
        }

    def stale(self) -> str:
        """Return, for realtime, which input is missing, too old or out of sync; empty if none."""
        begun_ns, now_s = origin_of(self.frame_id), self._steady.now_s()
        for age_s, source in zip(self.ages_s().values(), self.sources.values(), strict=True):
            if source.message is None or source.stamp_ns < begun_ns:
                return f"nothing from {source.label} yet (topic {source.topic})"
            if age_s > source.stamps.max_age_s:
                allowed = f"at most {source.stamps.max_age_s} s allowed"
                return f"{source.label} is {age_s:.2f} s old, {allowed}"
            if fault := source.stamps.fault(now_s, now_ns(self._node)):
                return f"{source.label} {fault}"
        stamps = {c: self.sources[c].stamp_ns for c in self._contract.cameras}
        if stamps:
            oldest = min(stamps, key=stamps.__getitem__)
            newest = max(stamps, key=stamps.__getitem__)
            skew_s = (stamps[newest] - stamps[oldest]) * 1e-9
            if skew_s > self._config.camera_max_skew_s:
                return f"camera {oldest!r} lags {skew_s:.2f} s behind camera {newest!r}"
        return ""

    def missing(self, *, images: bool) -> str:
        """Return, for lockstep, which input of the latest stamp is missing; empty if none."""
        for key, source in self.sources.items():
            if key in self._contract.cameras and not images:
                continue
            if source.message is None or source.stamp_ns != self.stamp_ns:
                return f"waiting for {source.label} (topic {source.topic})"
        return ""

    def check(self) -> None:
        """Raise ObservationError, for realtime, if the latest messages cannot be true.

        StateJump is raised once; afterwards, the new state counts.
        """
        state = self._read_state()
        stamps = dict.fromkeys(state, self.sources[JOINTS].stamp_ns)
        for pose in self._poses:
            stamps |= dict.fromkeys(
                (pose.position, pose.rotation), self.sources[pose.topic].stamp_ns
            )
        self._state.check(state, stamps)
        for camera, watch in self._images.items():
            # Looking at single pixels of the message is much faster than converting it.
            if fault := watch.fault(image_view(self.sources[camera].message, camera)):
                raise ObservationError(f"camera {camera!r} {fault}")

    def observation(self, instruction: str, *, images: bool) -> Observation:
        """Return the latest messages as one observation; raises ObservationError if malformed.

        Its stamp counts from the episode's start.
        """
        joints = self.sources[JOINTS].message
        cameras = self._contract.cameras if images else ()
        return Observation(
            images={c: image_array(self.sources[c].message, c) for c in cameras},
            state=self._read_state(),
            instruction=instruction,
            stamp_ns=to_ns(joints.header.stamp) - origin_of(joints.header.frame_id),
        )

    def _read_state(self) -> dict[str, np.ndarray]:
        state = read_joint_states(self.sources[JOINTS].message, self._robot)
        for pose in self._poses:
            state |= read_pose(self.sources[pose.topic].message, pose)
        return state

    def _receive(self, key: str, message: Any) -> None:
        source = self.sources[key]
        source.message = message
        source.arrived_s = self._steady.now_s()
        source.stamps.add(source.stamp_ns, source.arrived_s)
        self._on_message(key)


class Outputs:
    """Publishers of a simulated robot; all are RELIABLE, which matches every subscriber."""

    def __init__(self, node: Node, robot: Embodiment, config: SimBridgeConfig):
        self.published_s = 0.0
        """Time of the latest published observation, on the steady clock [s]."""
        self._robot = robot
        self._config = config
        make, poses = node.create_publisher, pose_topics(robot.state)
        self._cameras = {c: make(Image, f"camera/{c}/image", SENSOR) for c in robot.cameras}
        self._video = make(Image, "camera/video/image", SENSOR) if config.video_size else None
        self._joints = make(JointState, "joint_states", SENSOR)
        self._poses = {pose: make(PoseStamped, pose.topic, SENSOR) for pose in poses}
        self._instruction = make(String, "instruction", LATCHED)
        lockstep = config.mode == "lockstep"
        self._clock = make(ClockMessage, "/clock", SENSOR) if lockstep else None

    def instruction(self, text: str) -> None:
        """Publish the instruction of an episode and wait until every subscriber has received it."""
        self._instruction.publish(String(data=text))
        self._instruction.wait_for_all_acked(Duration(seconds=1.0))

    def observation(self, observation: Observation, stamp_ns: int, origin_ns: int) -> None:
        """Publish an observation, with its images if it has any, under the stamp ``stamp_ns``.

        ``origin_ns`` is the stamp at which the time of this episode is zero.
        """
        if self._clock is not None:
            self._clock.publish(ClockMessage(clock=to_stamp(stamp_ns)))
        for name, image in observation.images.items():
            self._cameras[name].publish(image_message(image, name, stamp_ns))
        for pose, publisher in self._poses.items():
            publisher.publish(pose_message(observation.state, pose, stamp_ns))
        joints = joint_states_message(observation.state, self._robot, stamp_ns, origin_ns)
        self._joints.publish(joints)
        self.published_s = time.monotonic()

    def video(self, env: Env, stamp_ns: int) -> None:
        """Publish a video frame, if the video is enabled."""
        if self._video is not None:
            if not isinstance(env, RenderedEnv):
                raise ConfigError("this simulator renders no video; set video_size to 0")
            height = self._config.video_size
            frame = env.render(self._config.video_camera, height, height * 4 // 3)
            self._video.publish(image_message(frame, "video", stamp_ns))
