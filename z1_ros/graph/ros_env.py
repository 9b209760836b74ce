"""A simulator behind the node graph, as an ``Env``: topics and services instead of calls.

The caller takes ``policy_node``'s place: it hears what a policy hears and publishes ``action``, one
for each observation stamp; between it and the simulator is ``guard_node``, as on a robot.
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
    """Control steps after which an episode is over; known once one has begun."""
    seed = 0
    """Seed of the current scene."""
    instruction = ""
    """What to do in the current scene, in words."""
    scene_id = ""
    """Hash that equal scenes share."""

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
        """Connect to a graph that runs.

        Args:
            client: Connected to the graph.
            task: Task name.
            robot: Robot in the simulator.
            cameras: Those that are looked through; the robot may have more.
            reply_timeout_s: Longest wait for what follows an action [s].
            close: Ends what belongs to the graph.
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
        """Build the scene that belongs to ``seed``; raises ConfigError if there is none."""
        self._set({"task": self.task, "seed": seed})
        self._begin("reset", ConfigError)

    def restore(self, data: bytes) -> None:
        """Go to a snapshot; raises SnapshotMismatch, in the simulator's words, if it refuses."""
        self._set({"snapshot": base64.b64encode(data).decode("ascii")})
        self._begin("restore", SnapshotMismatch)

    def snapshot(self) -> bytes:
        """Return everything needed to continue from here, bit for bit."""
        return base64.b64decode(self._trigger("snapshot", ConfigError), validate=True)

    def step(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim), one control step each; stop early when done.

        Raises:
            ActionError: Wrong shape or not finite; nothing is executed.
            GraphError: The graph does not react.
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
        """Return the present instant with its images."""
        return self._read(images=True)

    def read_state(self) -> Observation:
        """As ``observe``, but without images."""
        return self._read(images=False)

    def close(self) -> None:
        """Leave the graph, and end it if it is ours."""
        self._close()

    @property
    def _stamp_ns(self) -> int:
        """Stamp of the present observation [ns]; every episode begins with one."""
        assert self._inputs.stamp_ns is not None
        return self._inputs.stamp_ns

    def _act(self, action: np.ndarray) -> None:
        """Act on the present observation; return when the simulator has made its step."""
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
        # Not by its stamp: a simulator started anew may begin earlier than its predecessor ended.
        self._wait(lambda: origin_of(self._inputs.frame_id) == begun["origin"], "first observation")
        self._frame_id = self._inputs.frame_id
        self._wait(self._guards_there, f"{GUARD} in the graph")
        self._guards = self._guards_there()
        self._over = False

    def _set(self, values: dict[str, object]) -> None:
        self._client.set_parameters(BRIDGE, values, self._reply_timeout_s)

    def _trigger(self, service: str, refused: type[Exception]) -> str:
        # Asked twice, it would begin two episodes; all our services have been known to the
        # simulator since it responded to ``set_parameters``, so asking once is enough.
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
        """Whether the step is done: there is a newer observation, or the episode is over."""
        if self._inputs.frame_id != self._frame_id:
            raise GraphError("the simulator has begun another episode by itself")
        text, values = self._client.status(BRIDGE)
        self._over = text.startswith("episode over") and int(values["episode"]) == self._episode
        return self._over or self._stamp_ns > after_ns

    def _on_input(self, key: str) -> None:
        """Act again if the simulator asks again: the action was lost on its way."""
        latest = self._latest
        if key == JOINTS and latest and to_ns(latest.header.stamp) == self._inputs.stamp_ns:
            self._action.publish(latest)

    def _steps(self) -> int:
        """Control steps since the scene's first instant."""
        time_ns = self._stamp_ns - origin_of(self._frame_id)
        return round(time_ns * 1e-9 * self.embodiment.control_hz)

    def _guards_there(self) -> set[bytes]:
        """Return the ids of all guards, also of one that has just died and is still listed."""
        publishers = self._client.node.get_publishers_info_by_topic("safe_action")
        return {bytes(publisher.endpoint_gid) for publisher in publishers}

    def _require_running(self) -> None:
        if self._over:
            raise ConfigError("the simulator has no running episode: call reset or restore first")

    def _require_free(self) -> None:
        """Raise an error if the actions that were executed may not be those that were given.

        Raises:
            GraphError: The guard was replaced: the new one limits the change to another last
                command, and knows no stop.
            TrainingError: The guard held the robot.
        """
        if self._guards_there() - self._guards:
            raise GraphError(f"{GUARD} was started anew within an episode")
        values = self._client.status(GUARD)[1]
        if reason := values.get("stop_reason"):
            raise TrainingError(
                f"{GUARD} has stopped the robot: {reason}; call {GUARD}/reset, then go on"
            )
