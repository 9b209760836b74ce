"""An ``Env`` whose simulator runs in a node graph, reached through topics and services.

The caller replaces ``policy_node``: it receives the same topics as a policy and publishes one
``action`` for each observation stamp. ``guard_node`` checks the actions, as on a real robot.
"""

import base64
import json
from collections.abc import Callable
from functools import partial

import numpy as np
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from z1_ros.errors import ConfigError, GraphError, SnapshotMismatch, TrainingError
from z1_ros.graph.client import BRIDGE, GUARD, GraphClient
from z1_ros.nodes.configs import PolicyNodeConfig
from z1_ros.nodes.messages import action_message, origin_of, to_ns
from z1_ros.nodes.qos import COMMAND
from z1_ros.nodes.topics import JOINTS, Inputs
from z1_ros.runtime.clock import WallClock
from z1_ros.specs import Contract, Embodiment, ordered_actions
from z1_ros.types import Observation, Step


class RosEnv:
    """An ``Env`` whose simulator is a ``sim_bridge_node`` in lockstep."""

    horizon = 0
    """Control steps after which an episode is over; known after the first ``reset``."""
    seed = 0
    """Seed of the current scene."""
    instruction = ""
    """Instruction of the current scene."""
    scene_id = ""
    """Hash of the current scene; equal scenes have equal hashes."""

    def __init__(
        self,
        client: GraphClient,
        task: str,
        robot: Embodiment,
        *,
        cameras: tuple[str, ...],
        reply_timeout_s: float = 60.0,
        close: Callable[[], object] = lambda: None,
    ):
        """Connect to a running graph, and subscribe to ``cameras``; the robot may have more.

        ``reply_timeout_s`` is the longest wait for the next observation after an action. ``close``
        disconnects from the graph and stops it if this process started it.
        """
        self.task = task
        self.embodiment = robot
        self._client = client
        self._reply_timeout_s = reply_timeout_s
        self._close = close
        self._latest: JointState | None = None
        self._episode = 0
        self._frame_id = ""
        self._over = True
        self._guards: set[bytes] = set()
        client.prepare(Trigger, *(f"{BRIDGE}/{name}" for name in ("reset", "snapshot", "restore")))
        self._action = client.node.create_publisher(JointState, "action", COMMAND)
        config = PolicyNodeConfig(embodiment=robot.name, mode="lockstep")
        sees = Contract(
            cameras=cameras,
            state=robot.state,
            action=robot.action,
            control_hz=robot.control_hz,
            horizon=1,
        )
        self._inputs = Inputs(client.node, sees, robot, config, WallClock(), self._on_input)

    def reset(self, seed: int) -> None:
        """Build the scene of ``seed`` and start its episode; raises ConfigError if refused."""
        self._set({"task": self.task, "seed": seed})
        self._begin("reset", ConfigError)

    def restore(self, data: bytes) -> None:
        """Restore a snapshot; raises SnapshotMismatch with the simulator's text if it refuses."""
        self._set({"snapshot": base64.b64encode(data).decode("ascii")})
        self._begin("restore", SnapshotMismatch)

    def snapshot(self) -> bytes:
        """Return the simulator's whole state, from which it continues bit for bit."""
        return base64.b64decode(self._trigger("snapshot", ConfigError), validate=True)

    def step(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim), one control step each; stop early when done.

        Raises:
            ActionError: The actions have a wrong shape or are not finite; none is executed.
            GraphError: The graph does not react in time.
            TrainingError: The guard stopped the robot.
        """
        self._require_running()
        consumed = 0
        for action in ordered_actions(actions, self.embodiment.action_dims, ndim=2):
            self._act(action)
            consumed += 1
            if self._over:
                break
        self._require_free()
        if not self._over:
            return Step(steps=self._steps(), success=False, done=False, consumed=consumed)
        values = self._client.status(BRIDGE)[1]
        success = values["success"] == "true"
        return Step(steps=int(values["steps"]), success=success, done=True, consumed=consumed)

    def observe(self) -> Observation:
        """Return the present observation with images."""
        return self._read(images=True)

    def read_state(self) -> Observation:
        """Return the present observation without images."""
        return self._read(images=False)

    def close(self) -> None:
        """Disconnect from the graph; stop it if this process started it."""
        self._close()

    @property
    def _stamp_ns(self) -> int:
        assert self._inputs.stamp_ns is not None  # every episode starts with an observation
        return self._inputs.stamp_ns

    def _act(self, action: np.ndarray) -> None:
        stamp_ns = self._stamp_ns
        dims = self.embodiment.action_dims
        self._latest = action_message(action, dims, stamp_ns, self._frame_id)
        self._action.publish(self._latest)
        self._wait(lambda: self._went_on(stamp_ns), "what follows an action")

    def _begin(self, service: str, refused: type[Exception]) -> None:
        self._latest, self._over = None, True
        begun = json.loads(self._trigger(service, refused))
        self._episode, self.horizon, self.seed = (begun[k] for k in ("episode", "horizon", "seed"))
        self.instruction, self.scene_id = begun["instruction"], begun["scene_id"]
        # Do not compare stamps: a restarted simulator may start at an earlier time than the time
        # at which the previous one ended.
        self._wait(lambda: origin_of(self._inputs.frame_id) == begun["origin"], "first observation")
        self._frame_id = self._inputs.frame_id
        self._wait(self._guards_there, f"{GUARD} in the graph")
        self._guards = self._guards_there()
        self._over = False

    def _set(self, values: dict[str, object]) -> None:
        self._client.set_parameters(BRIDGE, values, self._reply_timeout_s)

    def _trigger(self, service: str, refused: type[Exception]) -> str:
        # Send the request only once: a second one would start a second episode. The response
        # cannot be lost, because the simulator already responded to ``set_parameters``.
        name, once = f"{BRIDGE}/{service}", Trigger.Request()
        response = self._client.call(
            Trigger, name, once, self._reply_timeout_s, again_s=self._reply_timeout_s + 1
        )
        if not response.success:
            raise refused(f"{BRIDGE} refused to {service}: {response.message}")
        return response.message

    def _read(self, *, images: bool) -> Observation:
        self._require_running()
        missing = partial(self._inputs.missing, images=images)
        self._wait(lambda: not missing(), missing)
        return self._inputs.observation(self.instruction, images=images)

    def _wait(self, done: Callable[[], object], what: str | Callable[[], str]) -> None:
        self._client.wait(done, self._reply_timeout_s, what)

    def _went_on(self, after_ns: int) -> bool:
        """Return whether the step is executed: a newer observation arrived or the episode ended."""
        if self._inputs.frame_id != self._frame_id:
            raise GraphError("the simulator has begun another episode by itself")
        text, values = self._client.status(BRIDGE)
        self._over = text.startswith("episode over") and int(values["episode"]) == self._episode
        return self._over or self._stamp_ns > after_ns

    def _on_input(self, key: str) -> None:
        """Publish the action again if the simulator repeats its observation: it was lost."""
        latest = self._latest
        if key == JOINTS and latest and to_ns(latest.header.stamp) == self._inputs.stamp_ns:
            self._action.publish(latest)

    def _steps(self) -> int:
        time_ns = self._stamp_ns - origin_of(self._frame_id)
        return round(time_ns * 1e-9 * self.embodiment.control_hz)

    def _guards_there(self) -> set[bytes]:
        """Return the ids of all guard nodes, including one that died but is still listed."""
        publishers = self._client.node.get_publishers_info_by_topic("safe_action")
        return {bytes(publisher.endpoint_gid) for publisher in publishers}

    def _require_running(self) -> None:
        if self._over:
            raise ConfigError("the simulator has no running episode: call reset or restore first")

    def _require_free(self) -> None:
        """Raise an error if the executed actions may differ from the published ones."""
        # A new guard applies its rate limits from another last command and has lost a latched stop.
        if self._guards_there() - self._guards:
            raise GraphError(f"{GUARD} was started anew within an episode")
        values = self._client.status(GUARD)[1]
        if reason := values.get("stop_reason"):
            raise TrainingError(
                f"{GUARD} has stopped the robot: {reason}; call {GUARD}/reset, then go on"
            )
