"""``~/status``: the state of a node and its reason, latched; also on /diagnostics at 1 Hz."""

import time
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from z1_ros.nodes.messages import status_message
from z1_ros.nodes.qos import EVENT, LATCHED, STEADY

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

MIN_PERIOD_S = 0.1
LOG_PERIOD_S = 5.0
"""Time in which the same reason is not logged again [s]."""


class Status:
    """Publishes a node's state when it changes, and its values once a second."""

    def __init__(self, node: Node, values: Callable[[], dict[str, object]]):
        """Start publishing the state of ``node``, with what ``values`` returns."""
        self.level = OK
        self.text = "starting"
        self._node = node
        self._values = values
        self._published_s = 0.0
        self._logged_s: dict[str, float] = {}
        self._latched = node.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        self._timer = node.create_timer(1.0, self._each_second, clock=STEADY)

    def set(self, level: bytes, text: str) -> None:
        """Set the present state; a change of level or text is published immediately."""
        if (level, text) != (self.level, self.text):
            # Changing numbers in a text ("0.31 s old") must not flood the topic.
            same_kind = level == self.level and text.split()[:4] == self.text.split()[:4]
            self.level, self.text = level, text
            if not same_kind:
                self._log()
            if not same_kind or time.monotonic() - self._published_s > MIN_PERIOD_S:
                self.publish()

    def _log(self) -> None:
        """Log the state, so that the console shows why the robot moves or does not."""
        now_s, kind = time.monotonic(), " ".join(self.text.split()[:4])
        if now_s - self._logged_s.get(kind, -LOG_PERIOD_S) < LOG_PERIOD_S:
            return
        self._logged_s[kind] = now_s
        logger = self._node.get_logger()
        if self.level == ERROR:
            logger.error(self.text)
        elif self.level == WARN:
            logger.warning(self.text)
        else:
            logger.info(self.text)

    def refresh(self) -> None:
        """Publish the values, unless they were published just before."""
        if time.monotonic() - self._published_s > MIN_PERIOD_S:
            self.publish()

    def publish(self) -> None:
        """Publish state and values now."""
        self._published_s = time.monotonic()
        self._latched.publish(self.message())

    def message(self) -> DiagnosticStatus:
        """Return the message with state and values."""
        name = self._node.get_fully_qualified_name()
        return status_message(f"{name}: state", self.level, self.text, self._values())

    def _each_second(self) -> None:
        message = self.message()
        array = DiagnosticArray(status=[message])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(array)
        self._latched.publish(message)
