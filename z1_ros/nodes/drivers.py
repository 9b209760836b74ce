"""How ``policy_node`` acts: one driver for each mode, chosen when the node is configured.

``RealtimeDriver`` publishes an action every control period and never waits for inference.
``LockstepDriver`` publishes one action for each observation stamp of a simulator, exactly as
``StepLoop`` would in the simulator's own process.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.timer import Timer
from sensor_msgs.msg import JointState

from z1_ros.errors import ObservationError
from z1_ros.nodes.configs import PolicyNodeConfig
from z1_ros.nodes.messages import action_message, origin_of, to_ns
from z1_ros.nodes.qos import STEADY
from z1_ros.nodes.status import ERROR, OK, WARN, Status
from z1_ros.nodes.topics import JOINTS, Inputs
from z1_ros.policy.base import Policy
from z1_ros.runtime.clock import WallClock
from z1_ros.runtime.inference import failure_text
from z1_ros.runtime.loop import ControlLoop, StepLoop
from z1_ros.specs import embodiment
from z1_ros.types import Observation

NO_INSTRUCTION = "no instruction yet"
STOPPED = "stopped by ~/stop"


@dataclass(slots=True)
class Orders:
    """What people want of the policy."""

    instruction: str = ""
    """What to do; empty means hold."""
    running: bool = True
    """False between ``~/stop`` and ``~/start``."""

    @property
    def hold_reason(self) -> str:
        """Why the robot has to hold; empty if it may act."""
        if not self.running:
            return STOPPED
        return "" if self.instruction else NO_INSTRUCTION


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeParts:
    """What a driver uses of its node."""

    node: LifecycleNode
    """Owner of timers, subscriptions and the parameter ``noise_seed``."""
    action: LifecyclePublisher
    """Publisher of ``action``."""
    status: Status
    """Publisher of ``~/status``."""
    orders: Orders
    """What people want."""


class Driver(ABC):
    """Turns observations into actions between ``start`` and ``stop``."""

    loop: StepLoop | ControlLoop
    """Decides on the action; each mode has its own."""

    def __init__(self, parts: NodeParts, policy: Policy, config: PolicyNodeConfig):
        """Subscribe to what the policy needs; subclasses make their loop before."""
        self.acting = False
        """Whether actions are published now."""
        self._robot = embodiment(config.embodiment)
        self._parts = parts
        self._timer: Timer | None = None
        self._frame_id = ""
        self._latest: JointState | None = None
        self.inputs = Inputs(
            parts.node, policy.contract, self._robot, config, WallClock(), self._on_input
        )

    def start(self) -> None:
        """Begin to act."""
        self.acting = True
        self._reset_loop()
        self._timer = self._parts.node.create_timer(self._period_s(), self._on_timer, clock=STEADY)

    def stop(self) -> None:
        """Be silent from now on."""
        self.acting = False
        if self._timer is not None:
            self._parts.node.destroy_timer(self._timer)
        self.loop.clear()

    def reset(self) -> int:
        """Forget all observations and begin an episode; return the seed of its noise."""
        self.inputs.clear()
        self._frame_id = ""
        return self._reset_loop()

    def close(self) -> None:
        """Unsubscribe."""
        self.inputs.destroy()

    def values(self) -> dict[str, object]:
        """Return the numbers for ``~/status``."""
        values: dict[str, object] = {
            f"infer_{name}": value for name, value in self.loop.latency.summary().items()
        }
        values["chunks_refused"] = self.loop.queue.refused
        return values | {f"age_{key}_s": age for key, age in self.inputs.ages_s().items()}

    @abstractmethod
    def _period_s(self) -> float:
        """Return the period of the timer [s]."""

    @abstractmethod
    def _on_timer(self) -> None:
        """Do what the mode does in each period."""

    @abstractmethod
    def _on_input(self, key: str) -> None:
        """Take note of a message from the source ``key``."""

    def _follow_episode(self) -> bool:
        """Start afresh if a simulator has begun another episode; return whether it may act."""
        if not self.acting or not self._parts.orders.running or self.inputs.stamp_ns is None:
            return False
        if self.inputs.frame_id != self._frame_id:
            self._frame_id = self.inputs.frame_id
            self._reset_loop()
        return True

    def _reset_loop(self) -> int:
        seed = self._parts.node.get_parameter("noise_seed").value
        self.loop.reset(seed)
        self._latest = None
        return seed

    def _publish(self, action: np.ndarray, stamp_ns: int) -> None:
        self._latest = action_message(
            action, self._robot.action_dims, stamp_ns, self.inputs.frame_id
        )
        self._parts.action.publish(self._latest)

    def _say(self, held: str) -> None:
        if held:
            self._parts.status.set(WARN, f"holding: {held}")
        else:
            self._parts.status.set(OK, "acting")


class RealtimeDriver(Driver):
    """One action for each control period; a hold if there is no better one."""

    loop: ControlLoop

    def __init__(
        self, parts: NodeParts, policy: Policy, config: PolicyNodeConfig, replan_steps: int
    ):
        """Start the inference thread and subscribe; raises ConfigError for bad replan_steps."""
        robot = embodiment(config.embodiment)
        self.loop = ControlLoop(policy, robot, replan_steps, config.max_chunk_age_s)
        super().__init__(parts, policy, config)

    def stop(self) -> None:
        """Publish a last hold, and be silent."""
        super().stop()
        self._publish(self.loop.hold("stopping").action, self._present_ns())
        self._parts.action.wait_for_all_acked(Duration(seconds=0.2))

    def close(self) -> None:
        """End the inference thread and unsubscribe."""
        self.loop.close()
        super().close()

    def values(self) -> dict[str, object]:
        """Return the numbers for ``~/status``."""
        return super().values() | dict(self.loop.counts)

    def _period_s(self) -> float:
        return 1 / self._robot.control_hz

    def _on_input(self, key: str) -> None:
        self._follow_episode()

    def _on_timer(self) -> None:
        tick = self.loop.tick(self._observe)
        if tick.stamp_ns is None:
            stamp_ns = self._present_ns()
        else:
            stamp_ns = tick.stamp_ns + origin_of(self.inputs.frame_id)
        self._publish(tick.action, stamp_ns)
        self._say(tick.held)

    def _observe(self, *, images: bool) -> Observation:
        """Return the present observation; raises ObservationError if the robot has to hold."""
        orders = self._parts.orders
        if reason := orders.hold_reason or self.inputs.stale():
            raise ObservationError(reason)
        self.inputs.check_images()
        return self.inputs.observation(orders.instruction, images=images)

    def _present_ns(self) -> int:
        """Return the stamp of a hold that no observation caused: of the latest one, or now [ns]."""
        stamp_ns = self.inputs.stamp_ns
        return self._parts.node.get_clock().now().nanoseconds if stamp_ns is None else stamp_ns


class LockstepDriver(Driver):
    """One action for each observation stamp; physics waits for it, so a hold is not published."""

    loop: StepLoop

    def __init__(
        self, parts: NodeParts, policy: Policy, config: PolicyNodeConfig, replan_steps: int
    ):
        """Subscribe; raises ConfigError for bad replan_steps or delay_steps."""
        robot = embodiment(config.embodiment)
        self.loop = StepLoop(policy, robot, replan_steps, config.delay_steps)
        self._input_timeout_s = config.input_timeout_s
        super().__init__(parts, policy, config)

    def _period_s(self) -> float:
        return 0.25

    def _on_input(self, key: str) -> None:
        """Act as soon as everything that belongs to one stamp is there."""
        if not self._follow_episode():
            return
        if self._is_done():
            if key == JOINTS:  # the simulator asks again: our action was lost on its way
                self._parts.action.publish(self._latest)
            return
        instruction, images = self._parts.orders.instruction, self.loop.needs_images
        if not instruction or self.inputs.missing(images=images):
            return
        try:
            action = self.loop.act(self.inputs.observation(instruction, images=images))
        except Exception as error:  # no action, so physics stands still, and it is asked again
            self._parts.status.set(ERROR, f"holding: {failure_text(error)}")
            return
        assert self.inputs.stamp_ns is not None  # of the observation
        self._publish(action, self.inputs.stamp_ns)
        self._say(self.loop.held)

    def _on_timer(self) -> None:
        """Physics waits for us: say what we are waiting for."""
        inputs, orders = self.inputs, self._parts.orders
        quiet_s = min(inputs.ages_s().values())
        if quiet_s < self._input_timeout_s and inputs.stamp_ns is not None:
            return
        if orders.running and self._is_done():
            return
        missing = inputs.missing(images=self.loop.needs_images) if orders.running else ""
        if why := missing or orders.hold_reason:
            self._say(why)

    def _is_done(self) -> bool:
        """Whether the present observation has had its action."""
        latest = self._latest
        return latest is not None and to_ns(latest.header.stamp) == self.inputs.stamp_ns


DRIVERS = {"realtime": RealtimeDriver, "lockstep": LockstepDriver}
"""The driver of each mode."""
