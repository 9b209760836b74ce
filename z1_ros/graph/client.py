"""Control a running node graph from a program: parameters, services, episodes, statistics.

The client starts no thread. Callbacks of ``subscribe`` run only while a method call waits.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_srvs.srv import SetBool, Trigger

from z1_ros.environ import environment
from z1_ros.errors import ConfigError, GraphError
from z1_ros.graph.dds import Discovery, dds_env
from z1_ros.nodes.messages import status_values
from z1_ros.nodes.qos import LATCHED
from z1_ros.sim.episodes import EpisodeResult

BRIDGE, GUARD, POLICY = "sim_bridge_node", "guard_node", "policy_node"
TRANSITIONS = {
    "configure": (Transition.TRANSITION_CONFIGURE, "inactive"),
    "activate": (Transition.TRANSITION_ACTIVATE, "active"),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, "inactive"),
    "cleanup": (Transition.TRANSITION_CLEANUP, "unconfigured"),
}


class GraphClient:
    """A ROS node that talks to the nodes of one graph."""

    def __init__(
        self, domain_id: int | None = None, namespace: str = "", discovery: Discovery = "auto"
    ):
        """Join the domain ``domain_id``; None uses the environment variable ``ROS_DOMAIN_ID``."""
        self.check: Callable[[], None] = lambda: None
        """Function called while a method waits. It raises an error to stop the wait early."""
        self._context = Context()
        with environment(dds_env(discovery)):
            rclpy.init(context=self._context, domain_id=domain_id)
            self.node = rclpy.create_node(
                f"z1_client_{os.getpid()}", namespace=namespace, context=self._context
            )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._statuses: dict[str, DiagnosticStatus] = {}
        for name in (BRIDGE, GUARD, POLICY):
            heard = partial(self._statuses.__setitem__, name)
            self.node.create_subscription(DiagnosticStatus, f"{name}/status", heard, LATCHED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def wait(self, done: Callable[[], Any], timeout_s: float, what: str | Callable[[], str]) -> Any:
        """Process messages until ``done()`` returns a true value, and return that value.

        Raises:
            GraphError: The wait timed out. The message contains ``what`` (the name of the expected
                event, or a function that returns it) and the status of every node.
        """
        deadline_s = time.monotonic() + timeout_s
        while not (result := done()):
            if time.monotonic() > deadline_s:
                named = what if isinstance(what, str) else what()
                raise GraphError(f"{named}: not within {timeout_s:.0f} s. {self.describe()}")
            self.check()
            self._executor.spin_once(timeout_sec=0.1)
        return result

    def describe(self) -> str:
        """Return one sentence with the latest status text of each node."""
        said = [f"{name} says {s.message!r}" for name, s in self._statuses.items()]
        return "; ".join(said) if said else "No node of the graph was heard."

    def status(self, name: str) -> tuple[str, dict[str, str]]:
        """Return the latest status of a node: its text and its values."""
        message = self._statuses.get(name)
        return ("", {}) if message is None else (message.message, status_values(message))

    def subscribe(
        self, message_type: type, topic: str, callback: Callable[[Any], None], depth: int = 10
    ) -> None:
        """Call ``callback`` with each message of ``topic`` that arrives while a call waits."""
        profile = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(message_type, topic, callback, profile)

    def call(
        self,
        service_type: type,
        name: str,
        request: Any,
        timeout_s: float = 30.0,
        again_s: float = 5.0,
    ) -> Any:
        """Call a service and return its response.

        The client may discover a server before the server discovers the client; the response is
        then lost. The request is therefore sent again every ``again_s`` seconds. Repeating a
        request is safe for all services of z1_ros. GraphError is raised if no response arrives.
        """
        client = self._client(service_type, name)
        self.wait(client.service_is_ready, timeout_s, f"service {name}")
        futures = [client.call_async(request)]
        asked_s = time.monotonic()

        def response() -> Any:
            nonlocal asked_s
            if time.monotonic() - asked_s > again_s:
                futures.append(client.call_async(request))
                asked_s = time.monotonic()
            return next((future.result() for future in futures if future.done()), None)

        return self.wait(response, timeout_s, f"response of service {name}")

    def prepare(self, service_type: type, *names: str) -> None:
        """Connect to services, so that no later response of them is lost."""
        for name in names:
            self._client(service_type, name)

    def _client(self, service_type: type, name: str) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        return self._clients[name]

    def trigger(self, name: str, timeout_s: float = 30.0, again_s: float = 5.0) -> str:
        """Call a Trigger service and return its message; raises GraphError if it refuses."""
        response = self.call(Trigger, name, Trigger.Request(), timeout_s, again_s)
        if not response.success:
            raise GraphError(f"{name} refused: {response.message}")
        return response.message

    def pause(self, paused: bool) -> None:
        """Pause or resume the simulator."""
        self.call(SetBool, f"{BRIDGE}/pause", SetBool.Request(data=paused))

    def set_parameters(self, name: str, values: Mapping[str, Any], timeout_s: float = 30.0) -> None:
        """Set all given parameters of a node, or none; raises ConfigError if the node refuses."""
        request = SetParametersAtomically.Request()
        request.parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        service = f"{name}/set_parameters_atomically"
        response = self.call(SetParametersAtomically, service, request, timeout_s)
        if not response.result.successful:
            raise ConfigError(f"{name} refused {dict(values)}: {response.result.reason}")

    def state(self, name: str) -> str:
        """Return the state of a lifecycle node: unconfigured, inactive, active or finalized."""
        request = GetState.Request()
        response = self.call(GetState, f"{name}/get_state", request, again_s=1.0)
        return response.current_state.label

    def transition(self, name: str, transition: str, timeout_s: float = 120.0) -> None:
        """Execute a lifecycle transition; raises GraphError with the node's text if it fails."""
        request = ChangeState.Request()
        request.transition.id, goal = TRANSITIONS[transition]
        self._client(ChangeState, f"{name}/change_state")
        self.state(name)
        # Loading a model takes long, so the request is repeated late. The node's state decides
        # whether the transition succeeded, because a response may be lost.
        response = self.call(ChangeState, f"{name}/change_state", request, timeout_s, again_s=30.0)
        if not response.success and self.state(name) != goal:
            self._executor.spin_once(timeout_sec=0.1)
            raise GraphError(f"{name} did not {transition}: {self.status(name)[0]}")

    def reload(self, model: str = "", timeout_s: float = 120.0) -> str:
        """Make the policy node reload its model bundle or load another one, without a pause.

        An empty ``model`` reloads the present one, e.g. after it changed on disk. Returns the
        SHA-256 of the bundle that the policy now uses.

        Raises:
            GraphError: The node refused; the message contains its reason. The policy keeps the
                model that it had.
        """
        if model:
            self.set_parameters(POLICY, {"model": model})
        name = f"{POLICY}/reload"
        self._client(Trigger, name)
        self.state(POLICY)
        # As in ``transition``: loading takes long, so the request is repeated late.
        return self.trigger(name, timeout_s, again_s=30.0).split()[-1]

    def run_episode(
        self,
        task: str,
        seed: int,
        noise_seed: int | None = None,
        timeout_s: float = 300.0,
        on_progress: Callable[[Mapping[str, str]], None] | None = None,
    ) -> EpisodeResult:
        """Run one episode on a simulated robot and wait for its end.

        The policy resets itself with the new seed when it receives the first message of the new
        episode. Each message contains its episode, so messages of the previous one are ignored.
        ``noise_seed`` is ``seed`` by default. ``on_progress`` is called with the simulator's status
        values when they change.

        Raises:
            GraphError: The episode did not end in time, or a node refused or died.
        """
        self.set_parameters(POLICY, {"noise_seed": seed if noise_seed is None else noise_seed})
        self.set_parameters(BRIDGE, {"task": task, "seed": seed})
        begun = json.loads(self.trigger(f"{BRIDGE}/reset", timeout_s=120.0))
        seen: dict[str, str] = {}

        def over() -> dict[str, str] | None:
            nonlocal seen
            values = self.status(BRIDGE)[1]
            if int(values.get("episode", 0)) < begun["episode"]:
                return None
            if on_progress is not None and values != seen:
                seen = values
                on_progress(values)
            return values if values["done"] == "true" else None

        values = self.wait(over, timeout_s, f"end of episode {task}, seed {seed}")
        return EpisodeResult(
            task=task,
            seed=seed,
            instruction=begun["instruction"],
            success=values["success"] == "true",
            steps=int(values["steps"]),
        )

    def latency(self) -> dict[str, float]:
        """Return p50, p99 and count of the inference time and of the observation-to-action age.

        Times in ms. Inference times are counted since the policy was configured, ages since the
        task was set.
        """
        values = self.status(POLICY)[1] | self.status(BRIDGE)[1]
        names = [f"{of}_{key}" for of in ("infer", "age") for key in ("p50_ms", "p99_ms", "n")]
        return {name: float(values.get(name, "nan")) for name in names}
