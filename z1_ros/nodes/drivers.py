"""The drivers of ``policy_node``: one for each mode, chosen when the node is configured.

``RealtimeDriver`` publishes an action every control period and never waits for inference.
``LockstepDriver`` publishes one action for each observation stamp of a simulator: the same actions
as ``StepLoop`` in the simulator's process.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.timer import Timer
from sensor_msgs.msg import JointState

from z1_ros.errors import ConfigError, ObservationError, StateJump
from z1_ros.nodes.configs import PolicyNodeConfig
from z1_ros.nodes.messages import action_message, origin_of, to_ns
from z1_ros.nodes.qos import STEADY, now_ns
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
GUARD_STOPPED = "the guard stopped the robot; call ~/start when it may move again"


@dataclass(slots=True)
class Orders:
    """Instruction and start/stop state that users have requested."""

    instruction: str = ""
    """Instruction for the policy; empty means hold."""
    refused: str = ""
    """Reason why the latest instruction was not accepted; empty if it was."""
    stopped: str = ""
    """Reason why only ``~/start`` lets the robot move again; empty if it may."""

    @property
    def hold_reason(self) -> str:
        """Reason why the robot has to hold; empty if it may move."""
        return self.stopped or self.refused or ("" if self.instruction else NO_INSTRUCTION)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeParts:
    """Parts of the policy node that a driver uses."""

    node: LifecycleNode
    """Node that owns timers, subscriptions and the parameter ``noise_seed``."""
    action: LifecyclePublisher
    status: Status
    orders: Orders


class Driver(ABC):
    """Publishes actions for observations between ``start`` and ``stop``."""

    loop: StepLoop | ControlLoop
    """Control loop that computes the actions; its class depends on the mode."""

    def __init__(
        self, parts: NodeParts, policy: Policy, config: PolicyNodeConfig, replan_steps: int
    ):
        """Make the loop and subscribe; raises ConfigError for bad replan_steps or delay_steps."""
        self.acting = False
        """Whether actions are published now."""
        self._robot = embodiment(config.embodiment)
        self._config = config
        self.loop = self._make_loop(policy, replan_steps)
        self._parts = parts
        self._timer: Timer | None = None
        self._frame_id = ""
        self._latest: JointState | None = None
        self.inputs = Inputs(
            parts.node, policy.contract, self._robot, config, WallClock(), self._on_input
        )

    def start(self) -> None:
        """Start publishing actions."""
        self.acting = True
        self._reset_loop()
        self._timer = self._parts.node.create_timer(self._period_s(), self._on_timer, clock=STEADY)

    def stop(self) -> None:
        """Stop publishing actions."""
        self.acting = False
        if self._timer is not None:
            self._parts.node.destroy_timer(self._timer)
        self.loop.clear()

    def reset(self) -> int:
        """Forget all observations and start an episode; return its noise seed."""
        self.inputs.clear()
        self._frame_id = ""
        return self._reset_loop()

    def close(self) -> None:
        """Unsubscribe."""
        self.inputs.destroy()

    def values(self) -> dict[str, object]:
        """Return the values for ``~/status``."""
        return {
            **{f"infer_{name}": value for name, value in self.loop.latency.summary().items()},
            "chunks_refused": self.loop.queue.refused,
            **{f"age_{key}_s": age for key, age in self.inputs.ages_s().items()},
        }

    @abstractmethod
    def _make_loop(self, policy: Policy, replan_steps: int) -> StepLoop | ControlLoop:
        """Return the control loop of the mode."""

    @abstractmethod
    def _period_s(self) -> float:
        """Return the period of the timer [s]."""

    @abstractmethod
    def _on_timer(self) -> None:
        """Do the periodic work of the mode."""

    @abstractmethod
    def _on_input(self, key: str) -> None:
        """Handle a new message from the source ``key``."""

    def _follow_episode(self) -> bool:
        """Reset if the simulator has started another episode; return whether the robot may move."""
        if not self.acting or self._parts.orders.stopped or self.inputs.stamp_ns is None:
            return False
        if self.inputs.frame_id != self._frame_id:
            self._frame_id = self.inputs.frame_id
            self._new_episode()
        return True

    def _new_episode(self) -> None:
        self.inputs.new_episode()
        self._reset_loop()

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
    """Publishes one action per control period; a hold if no planned action is available."""

    loop: ControlLoop
    _jump: tuple[int | None, StateJump] | None = None

    def _make_loop(self, policy: Policy, replan_steps: int) -> ControlLoop:
        needed_s, allowed_s = replan_steps / self._robot.control_hz, self._config.max_chunk_age_s
        if needed_s >= allowed_s:
            raise ConfigError(
                f"replan_steps {replan_steps} takes {needed_s:g} s, but max_chunk_age_s drops "
                f"actions after {allowed_s:g} s: raise it and the guard's guard.max_lag_s"
            )
        return ControlLoop(policy, self._robot, replan_steps, self._config.max_chunk_age_s)

    def reset(self) -> int:
        """Forget all observations, and a jump that was not yet a stop."""
        self._jump = None
        return super().reset()

    def stop(self) -> None:
        """Publish a last hold and stop publishing."""
        super().stop()
        self._publish(self.loop.hold("stopping").action, now_ns(self._parts.node))
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
        begun_ns = origin_of(self.inputs.frame_id)
        stamp_ns = now_ns(self._parts.node) if tick.stamp_ns is None else begun_ns + tick.stamp_ns
        self._publish(tick.action, stamp_ns)
        self._say(tick.held)

    def _observe(self, *, images: bool) -> Observation:
        """Return the present observation; raises ObservationError if the robot has to hold."""
        orders = self._parts.orders
        if reason := orders.hold_reason or self.inputs.stale():
            raise ObservationError(reason)
        self._check_inputs()
        return self.inputs.observation(orders.instruction, images=images)

    def _check_inputs(self) -> None:
        """Raise ObservationError if the inputs cannot be true; a jump of the state is a stop.

        A simulator's new episode jumps, too. The pose may arrive before the joint states that name
        the episode, so only later joint states of the same episode make a jump a stop.
        """
        if self._jump is not None:
            stamp_ns, jump = self._jump
            if self.inputs.stamp_ns == stamp_ns:
                raise jump
            self._jump = None
            self._parts.orders.stopped = f"stopped: {jump}; call ~/start when the robot is ready"
            raise ObservationError(self._parts.orders.stopped)
        try:
            self.inputs.check()
        except StateJump as jump:
            self._jump = (self.inputs.stamp_ns, jump)
            raise

    def _new_episode(self) -> None:
        self._jump = None
        super()._new_episode()


class LockstepDriver(Driver):
    """Publishes one action for each observation stamp and nothing in between, as physics waits."""

    loop: StepLoop

    def _make_loop(self, policy: Policy, replan_steps: int) -> StepLoop:
        return StepLoop(policy, self._robot, replan_steps, self._config.delay_steps)

    def _period_s(self) -> float:
        return 0.25

    def _on_input(self, key: str) -> None:
        """Publish an action when all messages of one stamp have arrived."""
        if not self._follow_episode():
            return
        if self._is_done():
            if key == JOINTS:  # the simulator repeats its observation: the action was lost
                self._parts.action.publish(self._latest)
            return
        instruction, images = self._parts.orders.instruction, self.loop.needs_images
        if not instruction or self.inputs.missing(images=images):
            return
        try:
            action = self.loop.act(self.inputs.observation(instruction, images=images))
        except Exception as error:  # no action: physics waits and the observation is repeated
            self._parts.status.set(ERROR, f"holding: {failure_text(error)}")
            return
        assert self.inputs.stamp_ns is not None  # of the observation
        self._publish(action, self.inputs.stamp_ns)
        self._say(self.loop.held)

    def _on_timer(self) -> None:
        """Report in the status why physics waits."""
        inputs, orders = self.inputs, self._parts.orders
        if orders.stopped:
            self._say(orders.stopped)
            return
        quiet_s = min(inputs.ages_s().values())
        if quiet_s < self._config.input_timeout_s and inputs.stamp_ns is not None:
            return
        if self._is_done():
            return
        if why := inputs.missing(images=self.loop.needs_images) or orders.hold_reason:
            self._say(why)

    def _is_done(self) -> bool:
        """Return whether an action was published for the present observation."""
        latest = self._latest
        return latest is not None and to_ns(latest.header.stamp) == self.inputs.stamp_ns


DRIVERS: dict[str, type[RealtimeDriver] | type[LockstepDriver]] = {
    "realtime": RealtimeDriver,
    "lockstep": LockstepDriver,
}
"""Mode -> driver class."""
