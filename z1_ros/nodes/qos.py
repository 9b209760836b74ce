"""Quality of service (QoS) profiles that match the publishers.

A BEST_EFFORT subscription loses most raw images larger than Fast DDS's shared-memory segment
(rmw_fastrtps issue 739). A RELIABLE one receives nothing from BEST_EFFORT publishers, such as those
of franka_ros2. The reliability can therefore not be fixed in advance.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Actions: history depth 1, so that an old command is never delivered after a new one."""
SENSOR = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
"""Topics of the simulator: a RELIABLE publisher matches both kinds of subscribers."""
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Status and instruction publishers: late subscribers receive the last message."""
EVENT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Events: VOLATILE, so that subscribers receive ``ros2 topic pub --once``."""
UNSURE = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Compatible with every publisher, but lost messages are not sent again."""

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""Clock of every timer; ROS time may stop, and timers on ROS time with it."""


def now_ns(node: Node) -> int:
    """Return the present time on the clock of stamps [ns].

    That is ROS time, and the wall clock if ``use_sim_time`` is set but no ``/clock`` arrives.
    """
    return node.get_clock().now().nanoseconds or time.time_ns()


def subscribe_to_all(
    node: Node,
    message_type: type,
    topic: str,
    callback: Callable[[Any], None],
    profiles: tuple[QoSProfile, ...] = (EVENT, LATCHED, UNSURE),
) -> None:
    """Subscribe to all publishers of an important topic, whatever QoS they offer.

    Three subscriptions receive RELIABLE publishers without loss, earlier messages of latched
    publishers, and BEST_EFFORT publishers. ``callback`` may receive a message up to three times.
    """
    # No publisher matches all three profiles; suppress rclpy's warning about that.
    quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
    for profile in profiles:
        node.create_subscription(message_type, topic, callback, profile, event_callbacks=quiet)


class FollowingSubscription:
    """A subscription whose reliability follows the publishers of its topic.

    It starts as BEST_EFFORT, which matches every publisher, and becomes RELIABLE as soon as all
    publishers are RELIABLE. It becomes BEST_EFFORT again if a BEST_EFFORT publisher appears.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        policy: str = "auto",
    ):
        """Subscribe; ``policy`` is ``auto`` to follow the publishers, or a fixed reliability."""
        self.reliability = (
            ReliabilityPolicy.RELIABLE if policy == "reliable" else ReliabilityPolicy.BEST_EFFORT
        )
        self._node = node
        self._create = partial(node.create_subscription, message_type, topic, callback)
        self._subscription = self._subscribe()
        self._timer = (
            node.create_timer(0.1, self._follow, clock=STEADY) if policy == "auto" else None
        )

    def destroy(self) -> None:
        """Unsubscribe."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self):
        return self._create(QoSProfile(depth=SENSOR.depth, reliability=self.reliability))

    def _follow(self) -> None:
        offers = {
            info.qos_profile.reliability
            for info in self._node.get_publishers_info_by_topic(self._subscription.topic_name)
        }
        reliable = offers == {ReliabilityPolicy.RELIABLE}
        wanted = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        if offers and wanted != self.reliability:
            self.reliability = wanted
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._subscribe()
