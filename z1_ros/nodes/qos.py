"""Quality of service that fits what the publishers offer.

A BEST_EFFORT subscription loses most raw images larger than Fast DDS's shared-memory segment
(rmw_fastrtps issue 739) and a RELIABLE one hears nothing from BEST_EFFORT publishers such as
franka_ros2's, so neither can be fixed in advance.
"""

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Actions: an old command must never queue up behind a new one."""
SENSOR = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
"""What the simulator publishes: a RELIABLE publisher serves both kinds of subscriber."""
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Status and instruction publishers: who comes later still hears the last one."""
EVENT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Events: VOLATILE, so that subscribers hear ``ros2 topic pub --once``."""
UNSURE = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Heard from every publisher, but nothing is sent again."""

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""Clock of every timer: ROS time may stand still, and ROS timers with it."""


def subscribe_to_all(
    node: Node,
    message_type: type,
    topic: str,
    callback: Callable[[Any], None],
    profiles: tuple[QoSProfile, ...] = (EVENT, LATCHED, UNSURE),
) -> None:
    """Hear every publisher of a topic that matters more than what a publisher offers.

    One subscription per profile: RELIABLE publishers without loss, what latched publishers said
    before we came, BEST_EFFORT publishers. ``callback`` may get a message up to three times.
    """
    # That a publisher does not fit them all is no news; rclpy would warn of it.
    quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
    for profile in profiles:
        node.create_subscription(message_type, topic, callback, profile, event_callbacks=quiet)


class FollowingSubscription:
    """A subscription whose reliability follows the publishers of its topic.

    It starts BEST_EFFORT, which everybody can serve, and becomes RELIABLE as soon as all
    publishers are; a BEST_EFFORT publisher that turns up later turns it back.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        policy: str = "auto",
        depth: int = 2,
    ):
        """Subscribe.

        Args:
            node: Owner.
            message_type: Type of the topic.
            topic: Its name.
            callback: Receives each message.
            policy: ``auto``, or ``reliable`` or ``best_effort`` to fix it.
            depth: History depth.
        """
        self.reliability = (
            ReliabilityPolicy.RELIABLE if policy == "reliable" else ReliabilityPolicy.BEST_EFFORT
        )
        self._node = node
        self._type = message_type
        self._topic = topic
        self._callback = callback
        self._depth = depth
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
        profile = QoSProfile(depth=self._depth, reliability=self.reliability)
        return self._node.create_subscription(self._type, self._topic, self._callback, profile)

    def _follow(self) -> None:
        offers = {
            info.qos_profile.reliability
            for info in self._node.get_publishers_info_by_topic(self._subscription.topic_name)
        }
        if not offers:
            return
        wanted = (
            ReliabilityPolicy.RELIABLE
            if offers == {ReliabilityPolicy.RELIABLE}
            else ReliabilityPolicy.BEST_EFFORT
        )
        if wanted != self.reliability:
            self.reliability = wanted
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._subscribe()
