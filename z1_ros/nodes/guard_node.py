"""The last node before the robot: it checks ``action`` and publishes ``safe_action``.

The guard is a separate process, so a hung or killed policy cannot keep the arm moving. All its
timers use the steady clock. The guard commands a hold within 0.3 s of the policy's last action. The
distance until the robot stops depends on its controller: the kitchen's arm, at its full speed of
0.4 m/s, stays within 20 mm and is slower than 0.06 m/s 0.1 s after the hold.

``estop`` is one logical button: any publisher of true stops the robot, and ``~/reset`` is refused
while the last received value is true. Several buttons must be combined with a logical "or" into one
publisher.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from z1_ros.errors import ActionError
from z1_ros.nodes import params
from z1_ros.nodes.configs import GuardNodeConfig
from z1_ros.nodes.messages import action_message, read_action, to_ns
from z1_ros.nodes.process import StopRequest, run_node, spin
from z1_ros.nodes.qos import COMMAND, LATCHED, STEADY, now_ns, subscribe_to_all
from z1_ros.nodes.status import ERROR, OK, WARN, Status
from z1_ros.runtime.clock import WallClock
from z1_ros.runtime.guard import JUST_STARTED, Guard, Verdict
from z1_ros.runtime.plausible import PublisherWatch, stamp_fault
from z1_ros.specs import embodiment

NO_ACTION_YET = "no action yet"


class GuardNode(Node):
    """Applies ``runtime.guard.Guard`` to a stream of actions."""

    def __init__(self) -> None:
        """Declare parameters and connect; raises ConfigError for a bad parameter."""
        super().__init__("guard_node")
        self.config = params.declare(self, GuardNodeConfig())
        self.robot = embodiment(self.config.embodiment)
        self.guard = Guard(self.robot, self.config.guard)
        self._steady = WallClock()
        self._frame_id = ""
        self._latest: JointState | None = None
        self._senders_watch = PublisherWatch()
        self._is_stopped = False
        self._heard_estop_s = self._steady.now_s()
        self._realtime = self.config.mode == "realtime"
        if self._realtime and self.config.start_held:
            self.guard.stop(JUST_STARTED)
        self._safe_action = self.create_publisher(JointState, "safe_action", COMMAND)
        self._stopped_topic = self.create_publisher(Bool, "~/stopped", LATCHED)
        self._stopped_topic.publish(Bool(data=False))
        on_action: Any = self._on_action  # with the message's number, which rclpy's types forget
        self.create_subscription(JointState, "action", on_action, COMMAND)
        subscribe_to_all(self, Bool, "estop", self._on_estop)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.status = Status(self, self._values)
        self._say(NO_ACTION_YET)
        if self._realtime:
            self.create_timer(1 / self.robot.control_hz, self._on_timer, clock=STEADY)

    def run(self, stop: StopRequest) -> None:
        """Spin until asked to stop."""
        spin(self, stop)

    def safe_stop(self) -> None:
        """Publish a last hold."""
        if self.guard.commanded:
            self.guard.stop("guard shut down")
            self._publish_own(self.guard.hold(), "guard shut down")
            self._safe_action.wait_for_all_acked(Duration(seconds=0.2))
            self.status.publish()

    def _on_action(self, message: JointState, info: Mapping[str, int]) -> None:
        now_s, latest = self._steady.now_s(), self._latest
        if self._senders_watch.are_two(info["publication_sequence_number"], now_s):
            self._stop(f"two publishers send actions: {self._senders()}")
        if not self._realtime and latest and latest.header == message.header:
            self._safe_action.publish(latest)  # sent again; to filter it twice would move twice
            return
        try:
            action, dims = read_action(message)
            self.guard.check(action, dims)
            self._check_stamp(to_ns(message.header.stamp))
        except ActionError as error:
            verdict = self.guard.refuse(str(error))
            if self._realtime:
                self._publish_own(verdict.action, verdict.held)
            else:
                self._publish(verdict, to_ns(message.header.stamp))
            return
        if self._realtime and not self.guard.admits(now_s):
            return
        if message.header.frame_id != self._frame_id:
            self._frame_id = message.header.frame_id
            if not self._realtime:  # a real robot is where it was: its limits go on
                self.guard.new_episode()
        self._publish(self.guard.filter(action, dims, now_s), to_ns(message.header.stamp))

    def _check_stamp(self, stamp_ns: int) -> None:
        """Raise ActionError, in realtime, if a stamp is not close to now: a replayed recording."""
        if not self._realtime:
            return
        limits = self.config.guard.max_lag_s, self.config.guard.max_ahead_s
        if fault := stamp_fault(stamp_ns, now_ns(self), *limits):
            raise ActionError(f"it {fault}")

    def _senders(self) -> str:
        infos = self.get_publishers_info_by_topic("action")
        names = {f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in infos}
        return ", ".join(sorted(names))

    def _on_timer(self) -> None:
        now_s = self._steady.now_s()
        if self._button_is_silent() and not self.guard.stop_reason:
            self._stop(f"nothing on estop for more than {self.config.estop_timeout_s} s")
        verdict = self.guard.check_age(now_s)
        if verdict is not None:
            self._publish_own(verdict.action, verdict.held)

    def _button_is_silent(self) -> bool:
        """Return whether a button that sends all the time has fallen silent."""
        timeout_s = self.config.estop_timeout_s
        watched = self._realtime and timeout_s > 0
        return watched and self._steady.now_s() - self._heard_estop_s > timeout_s

    def _on_estop(self, message: Bool) -> None:
        self._heard_estop_s = self._steady.now_s()
        stopped_before = self.guard.stop_reason
        self.guard.set_estop(message.data)
        if self.guard.stop_reason == stopped_before:
            return
        if not self.guard.stop_reason:
            self._say(NO_ACTION_YET)
            return
        self._stop(self.guard.stop_reason)

    def _stop(self, reason: str) -> None:
        """Latch a stop, and command a hold at once."""
        self.guard.stop(reason)
        if self._realtime:
            self._publish_own(self.guard.hold(), "stopped")
        else:  # physics waits for an action; a hold would displace that action in the queue
            self._say("stopped")

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._button_is_silent():
            response.message = f"nothing on estop for more than {self.config.estop_timeout_s} s"
            return response
        response.success, response.message = self.guard.reset()
        self._latest = None
        if response.success:
            self._say(NO_ACTION_YET)
        self.get_logger().info(f"reset: {response.message}")
        return response

    def _publish_own(self, hold: np.ndarray, why: str) -> None:
        """Publish a hold of the guard itself, stamped with the present time."""
        self._publish(Verdict(action=hold, held=why), now_ns(self))

    def _publish(self, verdict: Verdict, stamp_ns: int) -> None:
        self._latest = action_message(
            verdict.action, self.robot.action_dims, stamp_ns, self._frame_id
        )
        self._safe_action.publish(self._latest)
        self._say(verdict.held)

    def _say(self, held: str) -> None:
        stopped = self.guard.stop_reason not in ("", JUST_STARTED)
        if stopped != self._is_stopped:
            self._is_stopped = stopped
            self._stopped_topic.publish(Bool(data=stopped))
        if self.guard.stop_reason:
            self.status.set(ERROR, f"stopped: {self.guard.stop_reason}")
        elif held == NO_ACTION_YET:
            self.status.set(WARN, NO_ACTION_YET)
        elif held:
            self.status.set(WARN, f"holding: {held}")
        else:
            self.status.set(OK, "passing actions")

    def _values(self) -> dict[str, object]:
        names = ("passed", "limited", "rate_limited", "refused", "stopped", "stale", "too_many")
        counts = {name: self.guard.counts[name] for name in names}
        return {"stop_reason": self.guard.stop_reason, "estop": self.guard.estop, **counts}


def main(args: list[str] | None = None) -> int:
    """Run the guard until SIGINT or SIGTERM; return the exit code."""
    return run_node(GuardNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
