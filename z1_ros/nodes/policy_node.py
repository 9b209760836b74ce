"""The policy as a lifecycle node: images, robot state and instruction in, ``action`` out.

An unconfigured or inactive node publishes no action. When the node is active, the driver of its
mode (``drivers.py``) publishes the actions.

``~/reload`` replaces the model of a configured node. The old model stays in use until the new one
is loaded and checked. Then the planned actions of the old model are dropped, and the robot holds
until the first action chunk of the new model. A model that does not fit is refused, and the old one
stays in use.
"""

import contextlib
from dataclasses import fields, replace
from functools import partial

from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from z1_ros.errors import BundleError, ConfigError
from z1_ros.nodes import params
from z1_ros.nodes.configs import PolicyNodeConfig
from z1_ros.nodes.drivers import DRIVERS, GUARD_STOPPED, STOPPED, Driver, NodeParts, Orders
from z1_ros.nodes.loading import BASE_NAME, Load, LoadedPolicy, load_bundle_policy, ready_policy
from z1_ros.nodes.messages import check_state_sources
from z1_ros.nodes.process import StopRequest, in_background, run_node, spin
from z1_ros.nodes.qos import COMMAND, EVENT, LATCHED, subscribe_to_all
from z1_ros.nodes.status import ERROR, OK, Status
from z1_ros.policy.replaceable import ReplaceablePolicy
from z1_ros.runtime.inference import failure_text
from z1_ros.specs import embodiment

RCLError = rclpy_implementation.RCLError
MODEL = ("model", "backend", "threads")
"""Parameters that a reload reads again."""
LIVE = ("camera_max_age_s", "state_max_age_s", "max_ahead_s", "camera_max_skew_s", "instruction")
"""Parameters that apply at once."""
MAX_INSTRUCTION = 1000
"""Longest instruction [characters]; the prompts of published models hold 200 tokens."""
CANNOT_LOAD = "cannot load the model"
LOAD_S = 600.0
"""Longest duration of a reload [s]; a hung reload must not block later ones."""


class PolicyNode(LifecycleNode):
    """Drives a robot with a policy."""

    def __init__(self, load: Load = load_bundle_policy):
        """Declare parameters; raises ConfigError for a bad one. The model loads in configure."""
        super().__init__("policy_node")
        self._load = load
        self._config = params.declare(self, PolicyNodeConfig(), self._check_change)
        self.add_post_set_parameters_callback(self._on_changed)
        self._orders = Orders()
        self._loaded: LoadedPolicy | None = None
        self._policy: ReplaceablePolicy | None = None
        self._driver: Driver | None = None
        self._finalized = self._guard_stopped = False
        self._reload_note = self._expert = ""
        self._status = Status(self, self._values)
        self._status.set(OK, "unconfigured")
        self._action = self.create_lifecycle_publisher(JointState, "action", COMMAND)
        subscribe_to_all(
            self, String, "instruction", self._on_instruction, profiles=(EVENT, LATCHED)
        )
        self.create_subscription(Bool, "guard_node/stopped", self._on_guard, LATCHED)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/start", partial(self._on_run, True))
        self.create_service(Trigger, "~/stop", partial(self._on_run, False))
        # A separate callback group: reloads run one after the other, parallel to other callbacks.
        alone = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/reload", self._on_reload, callback_group=alone)

    # Life cycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and check it against the robot; stay unconfigured if it does not fit."""
        try:
            self._set_up()
        except Exception as error:  # a backend's own errors must not take the process down
            return self._give_up(failure_text(error, CANNOT_LOAD))
        self._reload_note = ""
        self._status.set(OK, "inactive")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start publishing actions."""
        result = super().on_activate(state)
        assert self._driver is not None  # only an inactive node is activated
        self._driver.start()
        self._status.set(OK, "active")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish a hold and stop publishing actions."""
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
        """Return to the unconfigured state."""
        self._quit_acting("error")
        self._tear_down()
        self._status.set(ERROR, "an error in a transition; back to unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def _LifecycleNodeMixin__on_change_state(  # noqa: N802
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Refuse a transition that the present state does not have; rclpy's would end the node."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except RCLError:
            _, state = self._state_machine.current_state
            transition = request.transition.label or request.transition.id
            self.get_logger().error(f"transition {transition} refused: the node is {state}")
            response.success = False
            return response

    def run(self, stop: StopRequest) -> None:
        """Spin until asked to stop."""
        spin(self, stop)

    def safe_stop(self) -> None:
        """Publish a last hold and shut down."""
        if not self._finalized:
            self.trigger_shutdown()

    def _set_up(self) -> None:
        config = self._config = params.read(self, self._config)
        self._status.set(OK, f"loading model {config.model}")
        self._status.publish()
        check_state_sources(embodiment(config.embodiment))
        loaded = self._loaded = ready_policy(self._load, config)
        policy = self._policy = ReplaceablePolicy(loaded.policy)
        if not (self._orders.instruction or self._orders.refused):
            self._on_instruction(String(data=config.instruction))
        parts = NodeParts(node=self, action=self._action, status=self._status, orders=self._orders)
        replan_steps = config.replan_steps or loaded.replan_steps
        self._driver = DRIVERS[config.mode](parts, policy, config, replan_steps)
        self._choose_expert()

    def _give_up(self, why: str) -> TransitionCallbackReturn:
        self._tear_down()
        self._status.set(ERROR, f"unconfigured: {why}")
        self._status.publish()
        self.get_logger().error(why)
        return TransitionCallbackReturn.FAILURE

    def _quit_acting(self, why: str) -> None:
        if self._driver is not None and self._driver.acting:
            self._driver.stop()
            self._status.set(OK, why)

    def _tear_down(self) -> None:
        if self._driver is not None:
            self._driver.close()
        self._driver = self._policy = self._loaded = None

    @property
    def _active(self) -> bool:
        return self._driver is not None and self._driver.acting

    def _forget_plan(self) -> None:
        if self._driver is not None:
            self._driver.loop.clear()

    def _check_change(self, config: PolicyNodeConfig) -> None:
        """Raise ConfigError for a change that would have no effect on a configured node."""
        if self._driver is None:
            return
        present = params.read(self, self._config)
        for name in [f.name for f in fields(config) if f.name not in (*MODEL, *LIVE, "noise_seed")]:
            if getattr(config, name) != getattr(present, name):
                raise ConfigError(
                    f"{name} is read when the node is configured: call cleanup, set it, configure"
                )

    def _on_changed(self, changed: list[Parameter]) -> None:
        """Apply the parameters that apply at once."""
        for parameter in changed:
            if parameter.name == "instruction":
                self._on_instruction(String(data=parameter.value))
        if self._driver is not None:
            present = params.read(self, self._config)
            self._config = replace(self._config, **{name: getattr(present, name) for name in LIVE})
            self._driver.inputs.limit(self._config)
        self._status.publish()

    # Events

    def _on_instruction(self, message: String) -> None:
        text = message.data.strip()
        if len(text) > MAX_INSTRUCTION:
            refused = f"the instruction has {len(text)} characters, at most {MAX_INSTRUCTION}"
            self._orders.refused, text = f"{refused} are allowed", ""
        elif text:
            self._orders.refused = ""
        if text == self._orders.instruction:  # a latched publisher sends it twice
            return
        self._orders.instruction = text
        self._forget_plan()
        self.get_logger().info(f"instruction: {text!r}")
        self._choose_expert()

    def _choose_expert(self) -> None:
        """Note which task expert acts, and warn if none knows the instruction."""
        text, loaded = self._orders.instruction, self._loaded
        self._expert = ""
        if loaded is None or not text:
            return
        with contextlib.suppress(BundleError):  # several match: inference says so
            self._expert = loaded.expert_of(text)
        if self._expert == BASE_NAME:
            self.get_logger().warning(
                f"no task expert of {loaded.name} matches {text!r}, so the base network acts; the "
                f"experts are {', '.join(loaded.experts)}"
            )

    def _on_guard(self, message: Bool) -> None:
        """Stop with the guard: its reset releases the stop, only ~/start moves the robot again."""
        self._guard_stopped = message.data
        if message.data:
            self._orders.stopped = self._orders.stopped or GUARD_STOPPED
            self._forget_plan()

    def _on_run(
        self, running: bool, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        if running and self._guard_stopped:  # else the guard's reset would be a restart
            response.message = "the guard is stopped; call guard_node/reset first"
            return response
        self._orders.stopped = "" if running else STOPPED
        self._forget_plan()
        response.success = True
        response.message = "acting" if running and self._active else "holding"
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._driver is None:
            response.message = "not configured: there is nothing to reset"
        else:
            response.success, response.message = True, f"noise seed {self._driver.reset()}"
        return response

    async def _on_reload(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = await self._reload()
            response.success = True
            self._reload_note = ""
            self.get_logger().info(response.message)
        except Exception as error:  # a backend's own errors must not take the process down
            response.message = failure_text(error, CANNOT_LOAD)
            self._reload_note = f"refused: {response.message}"
            self.get_logger().error(self._reload_note)
        self._status.publish()
        return response

    async def _reload(self) -> str:
        """Load the model that the parameters name and use it; keep the old model on any error."""
        policy, old = self._policy, self._loaded
        if policy is None or old is None:
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
        self._forget_plan()
        self._loaded, self._config = new, config
        self._choose_expert()
        return f"acting with {new.name} {new.sha256}"

    def _take_back(self, refused: PolicyNodeConfig) -> None:
        """Reset the parameters to the present model, except those that were changed meanwhile."""
        present = params.read(self, self._config)
        names = [n for n in MODEL if getattr(present, n) == getattr(refused, n)]
        self.set_parameters([Parameter(n, value=getattr(self._config, n)) for n in names])

    def _values(self) -> dict[str, object]:
        values: dict[str, object] = {
            "model": self._config.model,
            "bundle": self._loaded.sha256 if self._loaded else "",
            "reload": self._reload_note,
            "mode": self._config.mode,
            "instruction": self._orders.instruction,
            "expert": self._expert,
            "active": self._active,
        }
        return values if self._driver is None else values | self._driver.values()


def main(args: list[str] | None = None, load: Load = load_bundle_policy) -> int:
    """Run the policy until SIGINT or SIGTERM; return the exit code."""
    return run_node(lambda: PolicyNode(load), args)


if __name__ == "__main__":
    raise SystemExit(main())
