"""Subscriptions follow their publishers, and large images arrive."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from z1_ros.environ import environment
from z1_ros.graph.dds import dds_env, shared_file
from z1_ros.graph.domains import FreeDomain
from z1_ros.nodes.messages import image_array, image_message
from z1_ros.nodes.qos import FollowingSubscription

BEST_EFFORT, RELIABLE = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE

PUBLISHER = """
import sys, time, numpy as np, rclpy
from sensor_msgs.msg import Image
from z1_ros.nodes.messages import image_message
rclpy.init()
node = rclpy.create_node("camera")
publisher = node.create_publisher(Image, "image", 2)
while not publisher.get_subscription_count():
    time.sleep(0.01)
time.sleep(0.3)
image = np.arange(480 * 640 * 3, dtype=np.uint32).astype(np.uint8).reshape(480, 640, 3)
for i in range(40):
    publisher.publish(image_message(image, "x", i))
    time.sleep(1 / 30)
time.sleep(0.2)
"""


PATIENCE_S = 60.0


@pytest.fixture
def node():
    """A node on a domain of its own, with ``spin(done, timeout_s)``."""
    domain, context = FreeDomain(), Context()
    with environment(dds_env("localhost")):
        rclpy.init(context=context, domain_id=domain.id)
        made = rclpy.create_node("test", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(made)

    def spin(done, timeout_s=PATIENCE_S):
        deadline = time.monotonic() + timeout_s
        while not done() and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
        return done()

    made.spin, made.domain = spin, domain
    yield made
    executor.shutdown()
    made.destroy_node()
    context.shutdown()
    domain.close()


def test_reliability_follows_the_publishers_both_ways(node):
    seen = []
    subscription = FollowingSubscription(node, Image, "image", seen.append)
    image = np.zeros((4, 4, 3), np.uint8)

    def publishing(publisher):
        def done() -> bool:
            publisher.publish(image_message(image, "x", 0))
            return len(seen) >= 3

        return done

    assert subscription.reliability == BEST_EFFORT
    reliable = node.create_publisher(Image, "image", QoSProfile(depth=2, reliability=RELIABLE))
    assert node.spin(lambda: subscription.reliability == RELIABLE)
    assert node.spin(publishing(reliable))
    node.destroy_publisher(reliable)
    seen.clear()
    driver = node.create_publisher(Image, "image", QoSProfile(depth=2, reliability=BEST_EFFORT))
    assert node.spin(lambda: subscription.reliability == BEST_EFFORT)
    assert node.spin(publishing(driver)), "a best-effort camera is heard"


def test_a_fixed_choice_stays(node):
    subscription = FollowingSubscription(node, Image, "image", print, policy="reliable")
    node.create_publisher(Image, "image", QoSProfile(depth=2, reliability=BEST_EFFORT))
    node.spin(lambda: False, 0.5)
    assert subscription.reliability == RELIABLE


@pytest.mark.parametrize("profile", ["fastdds_localhost_large.xml", "fastdds.xml"])
@pytest.mark.parametrize("reliability", [BEST_EFFORT, RELIABLE])
def test_640x480_images_arrive_through_the_profiles(node, reliability, profile):
    """Without it, a BEST_EFFORT subscription gets a small part of them."""
    seen = []
    node.create_subscription(
        Image, "image", seen.append, QoSProfile(depth=40, reliability=reliability)
    )
    env = {
        **os.environ,
        **dds_env("localhost", str(shared_file(f"config/{profile}"))),
        "ROS_DOMAIN_ID": str(node.domain.id),
    }
    camera = subprocess.Popen([sys.executable, "-c", PUBLISHER], env=env)
    node.spin(lambda: camera.poll() is not None or len(seen) == 40)
    node.spin(lambda: len(seen) == 40, 2.0)
    camera.wait()
    assert len(seen) >= 38
    assert image_array(seen[-1], "x").shape == (480, 640, 3)
    assert image_array(seen[-1], "x")[1, 2, 0] == (640 * 3 + 6) % 256
