"""A simulator with the topics of a robot; ``safe_action`` controls it.

The simulator and its OpenGL context run on the main thread. ROS callbacks run on another thread and
pass their work to the main thread, so a long physics step never delays receiving a message.

``realtime``: physics follows the wall clock and does not wait. Each action is used once. In a
control period without a new action the robot holds, so the arm stops if policy or guard dies.
``lockstep``: one control step for each ``safe_action`` with the stamp of the present observation.
Stamps never repeat, not even across episodes, so a late message is always recognised.
"""

import base64
import contextlib
import json
import queue
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from functools import partial

import numpy as np
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from z1_ros.errors import ActionError, SnapshotMismatch, Z1Error
from z1_ros.nodes import params
from z1_ros.nodes.configs import SimBridgeConfig
from z1_ros.nodes.messages import read_action, to_ns
from z1_ros.nodes.process import StopRequest, run_node, spin
from z1_ros.nodes.qos import COMMAND
from z1_ros.nodes.status import OK, WARN, Status
from z1_ros.nodes.topics import Outputs
from z1_ros.runtime.latency import LatencyStats
from z1_ros.sim.env import Env
from z1_ros.sim.registry import EnvMaker
from z1_ros.specs import embodiment, ordered_actions
from z1_ros.types import Step

SERVICE_TIMEOUT_S = 120.0
STALE_S = 0.3
"""Longest time that a received action may wait [s]; an older one does not fit the robot's present
position. A hung subscriber may block publishing for seconds."""
GAP_NS = 1_000_000_000
"""Gap between the stamps of two episodes."""
NOT_BEGUN = Step(steps=0, success=False, done=False, consumed=0)


def make_env(config: SimBridgeConfig) -> Env:
    """Return the simulator that ``config`` names; raises ConfigError if it is unknown."""
    return EnvMaker(
        simulator=config.robot,
        task=config.task,
        embodiment=config.embodiment,
        image_size=config.image_size,
    )()


class SimBridgeNode(Node):
    """Runs an ``Env`` and connects it to the robot's topics."""

    def __init__(self, make: Callable[[SimBridgeConfig], Env] = make_env):
        """Declare parameters, make the simulator and connect; raises Z1Error on failure."""
        super().__init__("sim_bridge_node")
        self._config = params.declare(self, SimBridgeConfig(), self._check_task)
        self._robot = embodiment(self._config.embodiment)
        self._make = make
        self._env = make(self._config)
        self._lockstep = self._config.mode == "lockstep"
        self._work: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._actions: deque[tuple[float, JointState]] = deque(maxlen=2)
        self._paused = self._config.start_paused
        self._begun = False
        self._episode = 0
        self._scene = {"task": self._config.task, "seed": 0, "scene_id": "", "instruction": ""}
        # Lockstep stamps count simulated time from here; they never decrease.
        self._stamp_ns = time.time_ns() // GAP_NS * GAP_NS
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self._origin_ns = 0
        self._steps = 0
        self._step = NOT_BEGUN
        self._last: np.ndarray | None = None
        self._shown_s: dict[int, float] = {}
        self._next_s = self._images_s = 0.0
        self._age = LatencyStats()  # time from an observation to its action, for this task
        self._counts: Counter[str] = Counter()
        self._status = Status(self, self._values)
        self._out = Outputs(self, self._robot, self._config)
        self.create_subscription(JointState, "safe_action", self._on_safe_action, COMMAND)
        for name, job in (
            ("reset", self._reset),
            ("snapshot", self._snapshot),
            ("restore", self._restore),
        ):
            self.create_service(Trigger, f"~/{name}", partial(self._on_trigger, job))
        self.create_service(SetBool, "~/pause", self._on_pause)

    def run(self, stop: StopRequest) -> None:
        """Simulate until asked to stop."""
        spinner = threading.Thread(target=spin, args=(self, stop), daemon=True)
        spinner.start()
        advance = self._run_lockstep if self._lockstep else self._run_realtime
        try:
            self._reset()
            while not stop.requested:
                advance()
        finally:
            stop.set(stop.exit_code)
            spinner.join(timeout=1.0)

    def safe_stop(self) -> None:
        """Free the simulator; the simulated robot does not move without this process."""
        self._env.close()

    # Control steps

    @property
    def _running(self) -> bool:
        return self._begun and not self._paused and not self._step.done

    def _run_lockstep(self) -> None:
        """Do one of: a service's work, the step of an action, repeat the observation."""
        try:
            self._work.get(timeout=0.05)()
        except queue.Empty:
            silent_s = time.monotonic() - self._out.published_s
            # The very first observation is often published before its subscribers are discovered.
            # Later, a subscriber that does not answer is probably busy.
            patience_s = np.inf if self._steps else 0.2 * (1 + self._counts["resent"])
            if self._running and silent_s > min(patience_s, self._config.resend_s):
                self._counts["resent"] += 1
                self._publish(images=True)

    def _step_lockstep(self, message: JointState) -> None:
        """Advance if ``message`` carries the stamp of the present observation."""
        if not self._running or to_ns(message.header.stamp) != self._stamp_ns:
            return
        action = self._read(message)
        if action is None:
            return
        self._advance(action)
        # Render before the next observation is published; later it would delay its action.
        self._show_video(self._origin_ns + self._env.read_state().stamp_ns)
        if not self._step.done:
            self._publish(images=self._steps % self._config.image_every_steps == 0)
        self._after_step()

    def _run_realtime(self) -> None:
        """Run one control period of the wall clock."""
        period_s = 1 / self._robot.control_hz
        with contextlib.suppress(queue.Empty):
            while True:  # process waiting work even if steps take longer than a period
                self._work.get(timeout=max(0.0, self._next_s - time.monotonic()))()
        now_s = time.monotonic()
        self._counts["late_steps"] += int(now_s - self._next_s > period_s)
        self._next_s = max(self._next_s, now_s - period_s) + period_s
        moving = self._running
        if moving:
            self._advance(self._next_action())
        images = now_s >= self._images_s
        if images:
            self._images_s = now_s + 1 / self._config.camera_hz - period_s / 2
        self._publish(images=images)
        if moving:
            self._show_video(self._stamp_ns)
        if moving or self._step.done:
            self._after_step()

    def _next_action(self) -> np.ndarray:
        """Return the oldest unused action (action_dim,), or a hold if there is none."""
        while self._actions:
            received_s, message = self._actions.popleft()
            fresh = time.monotonic() - received_s <= STALE_S
            action = self._read(message) if fresh else None
            if action is not None:
                return action
        self._counts["held_steps"] += 1
        return self._robot.hold_action(self._last)

    def _read(self, message: JointState) -> np.ndarray | None:
        """Return an action in the robot's dimension order, or None if it is old or malformed."""
        shown_s = self._shown_s.get(to_ns(message.header.stamp))
        if to_ns(message.header.stamp) < self._origin_ns:
            return None
        try:
            values, dims = read_action(message)
            action = ordered_actions(values, self._robot.action_dims, dims)
        except ActionError as error:
            self._counts["refused"] += 1
            self._status.set(WARN, f"action refused: {error}")
            return None
        if shown_s is not None:
            self._age.add(time.monotonic() - shown_s)
        return action

    def _advance(self, action: np.ndarray) -> None:
        self._step = self._env.step(action[None])
        self._steps += 1
        self._last = action

    def _show_video(self, stamp_ns: int) -> None:
        """Publish a video frame if its time has come."""
        every = max(1, round(self._robot.control_hz / self._config.video_hz))
        if self._steps % every == 0 or self._step.done:
            self._out.video(self._env, stamp_ns)

    def _after_step(self) -> None:
        """Publish the status; start the next scene after an episode if ``repeat`` is set."""
        self._say()
        if self._step.done and self.get_parameter("repeat").value:
            seed = self.get_parameter("seed").value + 1
            self.set_parameters([Parameter("seed", value=seed)])
            self._reset()

    def _publish(self, *, images: bool) -> None:
        """Publish the present observation with a new stamp."""
        observation = self._env.observe() if images else self._env.read_state()
        if self._lockstep:
            self._stamp_ns = self._origin_ns + observation.stamp_ns
        else:
            self._stamp_ns = self._wall_ns()
        self._out.observation(observation, self._stamp_ns, self._origin_ns)
        self._shown_s.setdefault(self._stamp_ns, self._out.published_s)
        while len(self._shown_s) > 256:
            del self._shown_s[next(iter(self._shown_s))]

    def _wall_ns(self) -> int:
        """Return the wall time [ns], steady since the start.

        The node's clock cannot be used: under use_sim_time it waits for the /clock that this node
        publishes.
        """
        return self._wall_offset_ns + time.monotonic_ns()

    # Services: work on the simulator's thread

    def _reset(self) -> str:
        """Start the episode of the parameters ``task`` and ``seed``."""
        config = params.read(self, self._config)
        if config.task != self._env.task:
            made = self._make(config)
            made.reset(config.seed)
            self._env.close()
            self._env, self._age = made, LatencyStats()
        else:
            self._env.reset(config.seed)
        self._config = config
        return self._begin()

    def _begin(self) -> str:
        """Publish the simulator's present state as the start of a new episode."""
        if self._lockstep:
            # Do not subtract the state's own time: two episodes could then have the same origin.
            self._origin_ns = self._stamp_ns + GAP_NS
        else:
            # Again: the wall clock may have been set, or the machine was suspended.
            self._wall_offset_ns = time.time_ns() - time.monotonic_ns()
            self._origin_ns = self._wall_ns()
            self._next_s = time.monotonic()
        self._step, self._steps, self._last = NOT_BEGUN, 0, None
        self._actions.clear()
        self._shown_s.clear()
        self._counts.clear()
        self._episode += 1
        self._begun = True
        instruction = self._config.instruction or self._env.instruction
        # Values for the status: its timer thread must not read an env that is being replaced.
        self._scene = {
            "task": self._env.task,
            "seed": self._env.seed,
            "scene_id": self._env.scene_id,
            "instruction": instruction,
        }
        self._out.instruction(instruction)
        if not self._lockstep or not self._paused:
            self._publish(images=True)
        self._say()
        self._status.publish()
        return json.dumps(
            self._scene
            | {
                "episode": self._episode,
                "origin": self._origin_ns,
                "horizon": self._env.horizon,
            }
        )

    def _snapshot(self) -> str:
        return base64.b64encode(self._env.snapshot()).decode("ascii")

    def _restore(self) -> str:
        text = self.get_parameter("snapshot").value
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise SnapshotMismatch(f"parameter snapshot is not base64: {error}") from error
        if not data:
            raise SnapshotMismatch(
                "parameter snapshot is empty; set it to what ~/snapshot returned"
            )
        self._env.restore(data)
        return self._begin()

    def _pause(self, paused: bool) -> str:
        was_paused, self._paused = self._paused, paused
        if self._lockstep and was_paused and self._running:
            self._publish(images=True)
        self._say()
        self._status.publish()
        return "paused" if paused else "running"

    # Callbacks: on the thread of the executor

    def _check_task(self, config: SimBridgeConfig) -> None:
        """Raise ConfigError if the simulator lacks the task, by making an env without a reset."""
        if config.task != self._scene["task"]:
            self._make(config).close()

    def _on_safe_action(self, message: JointState) -> None:
        if self._lockstep:
            self._work.put(partial(self._step_lockstep, message))
        else:
            self._actions.append((time.monotonic(), message))

    def _on_trigger(
        self, job: Callable[[], str], _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success, response.message = self._on_main_thread(job)
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = self._on_main_thread(
            partial(self._pause, request.data)
        )
        return response

    def _on_main_thread(self, job: Callable[[], str]) -> tuple[bool, str]:
        """Run ``job`` on the simulator's thread; return (success, message)."""
        future: Future[str] = Future()

        def work() -> None:
            try:
                future.set_result(job())
            except Exception as error:  # reported to the caller; the node continues
                future.set_exception(error)

        self._work.put(work)
        try:
            return True, future.result(timeout=SERVICE_TIMEOUT_S)
        except Z1Error as error:
            return False, str(error)
        except TimeoutError:
            return False, f"the simulator did not reply within {SERVICE_TIMEOUT_S:.0f} s"
        except Exception as error:
            self.get_logger().error("".join(traceback.format_exception(error)))
            return False, f"{type(error).__name__}: {error}"

    # Status

    def _say(self) -> None:
        if self._step.done:
            text = "episode over: " + ("success" if self._step.success else "out of steps")
        else:
            text = "paused" if self._paused else "running"
        self._status.set(OK, text)
        self._status.refresh()

    def _values(self) -> dict[str, object]:
        return {
            **self._scene,
            "episode": self._episode,
            "steps": self._step.steps,
            "success": self._step.success,
            "done": self._step.done,
            "paused": self._paused,
            **{f"age_{key}": value for key, value in self._age.summary().items()},
            **{k: self._counts[k] for k in ("held_steps", "late_steps", "refused", "resent")},
        }


def main(args: list[str] | None = None, make: Callable[[SimBridgeConfig], Env] = make_env) -> int:
    """Run the simulator until SIGINT or SIGTERM; return the exit code."""
    return run_node(lambda: SimBridgeNode(make), args)


if __name__ == "__main__":
    raise SystemExit(main())
