"""What a simulated robot publishes: cameras, joint states, poses, instruction, clock."""

import time

from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from z1_ros.nodes.configs import SimBridgeConfig
from z1_ros.nodes.messages import (
    image_message,
    joint_states_message,
    pose_message,
    pose_topics,
    to_stamp,
)
from z1_ros.nodes.qos import LATCHED, SENSOR
from z1_ros.sim.env import Env
from z1_ros.specs import Embodiment
from z1_ros.types import Observation


class Outputs:
    """Publishers of a simulated robot; all RELIABLE, which serves every kind of subscriber."""

    def __init__(self, node: Node, robot: Embodiment, config: SimBridgeConfig):
        self.published_s = 0.0
        """When an observation was last published, on the steady clock [s]."""
        self._robot = robot
        self._config = config
        self._cameras = {
            name: node.create_publisher(Image, f"camera/{name}/image", SENSOR)
            for name in robot.cameras
        }
        self._film = (
            node.create_publisher(Image, "camera/film/image", SENSOR) if config.film_size else None
        )
        self._joints = node.create_publisher(JointState, "joint_states", SENSOR)
        self._poses = {
            pose: node.create_publisher(PoseStamped, pose.topic, SENSOR)
            for pose in pose_topics(robot.state)
        }
        self._instruction = node.create_publisher(String, "instruction", LATCHED)
        self._clock = (
            node.create_publisher(ClockMessage, "/clock", SENSOR)
            if config.mode == "lockstep"
            else None
        )

    def instruction(self, text: str) -> None:
        """Publish what to do, and wait until every subscriber has it: it precedes the episode."""
        self._instruction.publish(String(data=text))
        self._instruction.wait_for_all_acked(Duration(seconds=1.0))

    def observation(self, observation: Observation, stamp_ns: int, origin_ns: int) -> None:
        """Publish an observation; its images if it has any.

        Args:
            observation: What to publish.
            stamp_ns: Stamp of all its messages [ns].
            origin_ns: Stamp at which this episode's own time is zero [ns].
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

    def film(self, env: Env, stamp_ns: int) -> None:
        """Publish a picture for people, if that is switched on."""
        if self._film is not None:
            height = self._config.film_size
            picture = env.render(self._config.film_camera, height, height * 4 // 3)
            self._film.publish(image_message(picture, "film", stamp_ns))
