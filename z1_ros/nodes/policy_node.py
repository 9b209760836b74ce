"""The policy as a lifecycle node: images, robot state and instruction in, ``action`` out.

Unconfigured or inactive it publishes no action at all. In ``realtime`` mode it acts at the
control rate and never waits for inference; in ``lockstep`` mode it answers each observation
stamp of a simulator exactly once, as ``StepLoop`` would in the simulator's own process.

``~/reload`` exchanges the model of a configured node. The old one goes on until the new one is
loaded and checked; then the old one's planned actions are dropped, and the robot holds until the
new one's first answer. A model that does not fit changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from z1_ros.errors import ConfigError, ObservationError, Z1Error
from z1_ros.nodes import params
from z1_ros.nodes import process as signals
from z1_ros.nodes.configs import PolicyNodeConfig
from z1_ros.nodes.loading import LoadedPolicy, load_bundle_policy, ready_policy
from z1_ros.nodes.messages import action_message, check_state_sources, origin_of, to_ns
from z1_ros.nodes.process import in_background
from z1_ros.nodes.qos import COMMAND, EVENT, LATCHED, STEADY, subscribe_to_all
from z1_ros.nodes.status import ERROR, OK, WARN, Status
from z1_ros.nodes.topics import JOINTS, Inputs
from z1_ros.policy.replaceable import ReplaceablePolicy
from z1_ros.runtime.clock import WallClock
from z1_ros.runtime.inference import failure_text
from z1_ros.runtime.loop import ControlLoop, StepLoop
from z1_ros.specs import embodiment

NO_INSTRUCTION = "no instruction yet"
MODEL = ("model", "backend", "threads")
"""Parameters that a reload follows."""
LOAD_S = 600.0
"""Longest time that a reload may take; one that hangs must not keep later ones waiting [s]."""


class PolicyNode(LifecycleNode):
    """Drives a robot with a policy."""

    def __init__(self, load: Callable[[PolicyNodeConfig], LoadedPolicy] = load_bundle_policy):
        """Declare parameters; raises ConfigError for a bad one. The model loads in configure."""
        super().__init__("policy_node")
        self._load = load
        self._config = params.declare(self, PolicyNodeConfig())
        self._robot = embodiment(self._config.embodiment)
        self._steady = WallClock()
        self._loaded: LoadedPolicy | None = None
        self._policy: ReplaceablePolicy | None = None
        self._loop: StepLoop | ControlLoop | None = None
        self._inputs: Inputs | None = None
        self._timer = None
        self._active = False
        self._running = True
        self._finalized = False
        self._instruction = ""
        self._frame_id = ""
        self._answer: JointState | None = None
        self._reload_note = ""
        self._status = Status(self, self._values)
        self._status.set(OK, "unconfigured")
        self._action = self.create_lifecycle_publisher(JointState, "action", COMMAND)
        subscribe_to_all(
            self, String, "instruction", self._on_instruction, profiles=(EVENT, LATCHED)
        )
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/start", partial(self._on_run, True))
        self.create_service(Trigger, "~/stop", partial(self._on_run, False))
        # A group of its own: one reload after the other, beside everything else.
        alone = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/reload", self._on_reload, callback_group=alone)

    # Life cycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and check it against the robot; stay unconfigured if it does not fit."""
        try:
            self._set_up()
        except Z1Error as error:
            return self._give_up(str(error))
        except Exception as error:  # a backend's own errors must not take the process down
            return self._give_up(f"cannot load the model: {type(error).__name__}: {error}")
        self._reload_note = ""
        self._status.set(OK, "inactive")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to act."""
        result = super().on_activate(state)
        self._active = True
        self._reset_loop()
        if isinstance(self._loop, ControlLoop):
            period_s = 1 / self._robot.control_hz
            self._timer = self.create_timer(period_s, self._tick, clock=STEADY)
        else:
            self._timer = self.create_timer(0.25, self._name_missing_input, clock=STEADY)
        self._status.set(OK, "active")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish a hold and be silent."""
        self._quit_acting("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._tear_down()
        self._status.set(OK, "unconfigured")
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold, then free the model."""
        self._quit_acting("shutting down")
        self._tear_down()
        self._finalized = True
        self._status.set(OK, "finalized")
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self._quit_acting("error")
        self._tear_down()
        self._status.set(ERROR, "an error in a transition; back to unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def run(self, stop: signals.StopRequest) -> None:
        """Spin until asked to stop."""
        signals.spin(self, stop)

    def safe_stop(self) -> None:
        """Publish a last hold and shut down."""
        if not self._finalized:
            self.trigger_shutdown()

    def _set_up(self) -> None:
        config = self._config = params.read(self, self._config)
        self._robot = embodiment(config.embodiment)
        self._status.set(OK, f"loading model {config.model}")
        self._status.publish()
        check_state_sources(self._robot)
        loaded = self._loaded = ready_policy(self._load, config)
        contract = loaded.policy.contract
        policy = self._policy = ReplaceablePolicy(loaded.policy)
        replan_steps = config.replan_steps or loaded.replan_steps
        if config.mode == "lockstep":
            self._loop = StepLoop(policy, self._robot, replan_steps, config.delay_steps)
        else:
            self._loop = ControlLoop(policy, self._robot, replan_steps, config.max_chunk_age_s)
        self._instruction = self._instruction or config.instruction
        self._inputs = Inputs(self, contract, self._robot, config, self._steady, self._on_input)

    def _give_up(self, why: str) -> TransitionCallbackReturn:
        self._tear_down()
        self._status.set(ERROR, f"unconfigured: {why}")
        self._status.publish()
        self.get_logger().error(why)
        return TransitionCallbackReturn.FAILURE

    def _quit_acting(self, why: str) -> None:
        if not self._active:
            return
        self._active = False
        self.destroy_timer(self._timer)
        self._loop.clear()
        if isinstance(self._loop, ControlLoop):
            self._publish_hold(why)
            self._action.wait_for_all_acked(Duration(seconds=0.2))
        self._status.set(OK, why)

    def _tear_down(self) -> None:
        if isinstance(self._loop, ControlLoop):
            self._loop.close()
        if self._inputs is not None:
            self._inputs.destroy()
        self._loop = self._inputs = self._answer = self._policy = self._loaded = None

    # Events

    def _on_instruction(self, message: String) -> None:
        text = message.data.strip()
        if text == self._instruction:  # from a latched publisher it comes twice
            return
        self._instruction = text
        if self._loop is not None:
            self._loop.clear()
        self.get_logger().info(f"instruction: {text!r}")

    def _on_run(
        self, running: bool, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._running = running
        if self._loop is not None:
            self._loop.clear()
        response.success = True
        response.message = "acting" if running and self._active else "holding"
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._loop is not None
        if response.success:
            self._inputs.clear()
            self._frame_id = ""
            response.message = f"noise seed {self._reset_loop()}"
        else:
            response.message = "not configured: there is nothing to reset"
        return response

    async def _on_reload(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = await self._reload()
            response.success = True
            self._reload_note = ""
            self.get_logger().info(response.message)
        except Z1Error as error:
            response.message = str(error)
        except Exception as error:  # a backend's own errors must not take the process down
            response.message = f"cannot load the model: {type(error).__name__}: {error}"
        if not response.success:
            self._reload_note = f"refused: {response.message}"
            self.get_logger().error(self._reload_note)
        self._status.publish()
        return response

    async def _reload(self) -> str:
        """Load what the parameters name now and let it act; the old model stays on any error."""
        policy, old = self._policy, self._loaded
        if policy is None:
            raise ConfigError("not configured: there is no model to exchange; configure loads one")
        wanted = params.read(self, self._config)
        config = replace(self._config, **{name: getattr(wanted, name) for name in MODEL})
        self._reload_note = f"loading {config.model}"
        self._status.publish()
        try:
            new = await in_background(partial(ready_policy, self._load, config, old), LOAD_S)
        except Exception:
            if self._policy is policy:
                self._take_back(config)
            raise
        if self._policy is not policy:
            raise ConfigError("the node was cleaned up while it loaded; nothing was exchanged")
        if new.sha256 and new.sha256 == old.sha256 and config == self._config:
            return f"unchanged: {new.name} {new.sha256}"
        policy.replace(new.policy)
        self._loop.clear()
        self._loaded, self._config = new, config
        return f"acting with {new.name} {new.sha256}"

    def _take_back(self, refused: PolicyNodeConfig) -> None:
        """Let the parameters name the model that acts, but for what was set anew meanwhile."""
        present = params.read(self, self._config)
        names = [n for n in MODEL if getattr(present, n) == getattr(refused, n)]
        self.set_parameters([Parameter(n, value=getattr(self._config, n)) for n in names])

    def _reset_loop(self) -> int:
        seed = self.get_parameter("noise_seed").value
        self._loop.reset(seed)
        self._answer = None
        return seed

    def _follow_episode(self) -> None:
        """Start afresh when a simulator says that it began another episode."""
        if self._inputs.frame_id != self._frame_id:
            self._frame_id = self._inputs.frame_id
            self._reset_loop()

    def _on_input(self, key: str) -> None:
        """Lockstep: act as soon as everything that belongs to one stamp is there."""
        if not self._active or not self._running or self._inputs.stamp_ns is None:
            return
        self._follow_episode()
        if isinstance(self._loop, ControlLoop):
            return
        if self._answer is not None and to_ns(self._answer.header.stamp) == self._inputs.stamp_ns:
            if key == JOINTS:  # the simulator asks again: our answer was lost on the way
                self._action.publish(self._answer)
            return
        if self._inputs.missing(images=self._loop.needs_images) or not self._instruction:
            return
        try:
            observation = self._inputs.observation(
                self._instruction, images=self._loop.needs_images
            )
            action = self._loop.act(observation)
        except Exception as error:  # no answer, so physics stands still; it is asked again
            self._status.set(ERROR, f"holding: {failure_text(error)}")
            return
        self._publish(action, self._inputs.stamp_ns)
        self._say(self._loop.held)

    def _name_missing_input(self) -> None:
        """Lockstep: physics waits for us; say what we are waiting for."""
        inputs, timeout_s = self._inputs, self._config.input_timeout_s
        if min(inputs.ages_s().values()) < timeout_s and inputs.stamp_ns is not None:
            return
        if not self._running:
            self._status.set(WARN, "holding: stopped by ~/stop")
        elif self._answer is None or to_ns(self._answer.header.stamp) != inputs.stamp_ns:
            missing = inputs.missing(images=self._loop.needs_images)
            why = missing or (NO_INSTRUCTION if not self._instruction else "")
            if why:
                self._status.set(WARN, f"holding: {why}")

    def _tick(self) -> None:
        """Realtime: one action per control period, a hold if there is no better one."""
        fault = self._inputs.stale()
        if not self._running:
            fault = "stopped by ~/stop"
        elif not self._instruction:
            fault = NO_INSTRUCTION
        observation = None
        if not fault:
            try:
                observation = self._inputs.observation(self._instruction, images=True)
            except ObservationError as error:
                fault = str(error)
        tick = self._loop.tick(observation, fault)
        origin_ns = origin_of(self._inputs.frame_id)
        stamp_ns = tick.stamp_ns + origin_ns if observation else self._present_ns()
        self._publish(tick.action, stamp_ns)
        self._say(tick.held)

    # Output

    def _say(self, held: str) -> None:
        if held:
            self._status.set(WARN, f"holding: {held}")
        else:
            self._status.set(OK, "acting")

    def _publish(self, action: np.ndarray, stamp_ns: int) -> None:
        frame_id = self._inputs.frame_id
        self._answer = action_message(action, self._robot.action_dims, stamp_ns, frame_id)
        self._action.publish(self._answer)

    def _publish_hold(self, why: str) -> None:
        self._publish(self._loop.tick(None, why).action, self._present_ns())

    def _present_ns(self) -> int:
        """Stamp for a hold: of the latest joint states, or now."""
        stamp_ns = self._inputs.stamp_ns
        return self.get_clock().now().nanoseconds if stamp_ns is None else stamp_ns

    def _values(self) -> dict[str, object]:
        values: dict[str, object] = {
            "model": self._config.model,
            "bundle": self._loaded.sha256 if self._loaded else "",
            "reload": self._reload_note,
            "mode": self._config.mode,
            "instruction": self._instruction,
            "active": self._active,
        }
        if self._loop is not None:
            values |= {f"infer_{k}": v for k, v in self._loop.latency.summary().items()}
            values["chunks_refused"] = sum(self._loop.queue.refused.values())
            values |= {f"age_{k}_s": age for k, age in self._inputs.ages_s().items()}
        if isinstance(self._loop, ControlLoop):
            values |= dict(self._loop.counts)
        return values


def main(
    args: Sequence[str] | None = None,
    load: Callable[[PolicyNodeConfig], LoadedPolicy] = load_bundle_policy,
) -> int:
    """Run the policy until SIGINT or SIGTERM; return the exit code."""
    return signals.run_node(lambda: PolicyNode(load), args)


if __name__ == "__main__":
    raise SystemExit(main())
