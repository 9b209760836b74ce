"""As much of an rclpy node as our classes use: no graph, no threads, messages by hand."""

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class FakePublisher:
    """Keeps what was published."""

    def __init__(self):
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        """Keep it."""
        self.messages.append(message)

    def wait_for_all_acked(self, timeout: Any) -> bool:
        """Nobody listens."""
        return True


class FakeNode:
    """Its topics are heard with ``say``, its timers fire with ``fire``."""

    def __init__(self, name: str = "fake", **parameters: Any):
        self.name = name
        self.parameters = parameters
        self.publishers_by_topic: dict[str, FakePublisher] = {}
        self.timers: list[Callable[[], None]] = []
        self.now_ns = 7
        self.logged: list[str] = []
        self._heard: dict[str, list[Callable[[Any], None]]] = defaultdict(list)

    def say(self, topic: str, message: Any) -> None:
        """Deliver a message to the subscriptions of a topic."""
        for callback in list(self._heard[topic]):
            callback(message)

    def fire(self) -> None:
        """Let every timer fire once."""
        for callback in list(self.timers):
            callback()

    def create_subscription(self, kind, topic, callback, profile, **_) -> Any:
        """Remember who listens."""
        self._heard[topic].append(callback)
        return SimpleNamespace(topic_name=f"/{topic}", topic=topic, callback=callback)

    def destroy_subscription(self, subscription) -> None:
        """Forget them."""
        self._heard[subscription.topic].remove(subscription.callback)

    def create_publisher(self, kind, topic, profile) -> FakePublisher:
        """Return a publisher that keeps messages."""
        return self.publishers_by_topic.setdefault(topic, FakePublisher())

    def create_timer(self, period_s, callback, clock=None) -> Callable[[], None]:
        """Return a timer that fires by hand."""
        self.timers.append(callback)
        return callback

    def destroy_timer(self, timer) -> None:
        """Stop it."""
        self.timers.remove(timer)

    def get_publishers_info_by_topic(self, topic) -> list:
        """Nobody publishes."""
        return []

    def get_parameter(self, name) -> Any:
        """Return a parameter."""
        return SimpleNamespace(value=self.parameters[name])

    def get_clock(self) -> Any:
        """Return a clock that says ``now_ns``."""
        stamp = SimpleNamespace(nanoseconds=self.now_ns, to_msg=lambda: _stamp(self.now_ns))
        return SimpleNamespace(now=lambda: stamp)

    def get_logger(self) -> Any:
        """Return a logger that keeps what it logged."""
        log = self.logged.append
        return SimpleNamespace(error=log, warning=log, info=log)

    def get_fully_qualified_name(self) -> str:
        """Return ``/name``."""
        return f"/{self.name}"

    def resolve_topic_name(self, topic) -> str:
        """Return ``/topic``."""
        return f"/{topic}"


def _stamp(ns: int) -> Any:
    from builtin_interfaces.msg import Time

    return Time(sec=ns // 10**9, nanosec=ns % 10**9)
