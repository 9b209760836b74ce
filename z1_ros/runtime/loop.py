"""The two control loops that drive a robot with a policy.

``StepLoop`` counts control steps: equal observations give exactly equal actions. Evaluation and
the lockstep graph use it. ``ControlLoop`` runs in real time: its tick never waits for the policy,
whose inference runs on a separate thread.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from z1_ros.errors import ActionError, ConfigError, ObservationError
from z1_ros.policy.base import Policy
from z1_ros.runtime.chunks import ChunkQueue
from z1_ros.runtime.clock import Clock, WallClock
from z1_ros.runtime.inference import InferenceWorker, failure_text
from z1_ros.runtime.latency import LatencyStats
from z1_ros.specs import Embodiment
from z1_ros.types import ActionChunk, Observation

NO_CHUNK = "waiting for the policy's first action chunk"
QUEUE_EMPTY = "the policy is late: no action left"


class StepLoop:
    """Deterministic control: inference begins every ``replan_steps`` control steps.

    A malformed chunk is dropped, and the robot holds until the next planned inference. The step
    count alone therefore determines which steps need images.
    """

    def __init__(
        self, policy: Policy, embodiment: Embodiment, replan_steps: int, delay_steps: int = 0
    ):
        """Make a loop for a policy that fits the embodiment (``specs.check_contract``).

        An inference begins every ``replan_steps`` control steps and takes ``delay_steps``. During
        it, the robot executes the rest of the old chunk and then holds, as with a slow policy.

        Raises:
            ConfigError: A step count is out of range.
        """
        _check_replan_steps(replan_steps, policy)
        if delay_steps < 0:
            raise ConfigError(f"delay_steps is {delay_steps}, expected 0 or more")
        self.policy = policy
        self.embodiment = embodiment
        self.replan_steps = replan_steps
        self.delay_steps = delay_steps
        self.latency = LatencyStats(skip=1)
        """Durations of inference, without the first one."""
        self.held = ""
        """Reason why the latest action was a hold; empty if it came from the policy."""
        self._clock = WallClock()
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode whose policy noise is drawn from ``seed``."""
        self.policy.reset(seed)
        self.queue = ChunkQueue(self.embodiment.action_dims)
        self._step = 0
        self._last: np.ndarray | None = None
        self.clear()

    def clear(self) -> None:
        """Forget all planned actions (a new instruction); hold until the next inference."""
        self.queue.clear()
        self._pending: tuple[int, int, ActionChunk] | None = None

    @property
    def needs_images(self) -> bool:
        """Whether the next ``act`` begins an inference."""
        return self._pending is None and self._step % self.replan_steps == 0

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action (action_dim,) float32 for this control step.

        Raises:
            ObservationError: The policy cannot use the observation; nothing has changed.
        """
        fault = ""
        try:
            if self.needs_images:
                self._infer(observation)
            self._merge_if_due()
        except ActionError as error:
            fault = str(error)
        queued = self.queue.pop()
        if queued is None:
            self.held = fault or (QUEUE_EMPTY if self._last is not None else NO_CHUNK)
            action = self.embodiment.hold_action(self._last)
        else:
            self.held = ""
            action = queued.action
        self._step += 1
        self._last = action
        return action.copy()

    def _infer(self, observation: Observation) -> None:
        started_s = self._clock.now_s()
        chunk = self.policy.infer(observation)
        self.latency.add(self._clock.now_s() - started_s)
        self._pending = (self._step + self.delay_steps, self.queue.consumed, chunk)

    def _merge_if_due(self) -> None:
        if self._pending is not None and self._pending[0] <= self._step:
            _, started_at, chunk = self._pending
            self._pending = None
            self.queue.merge(chunk, started_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """Action of the control loop at one instant."""

    action: np.ndarray
    """(action_dim,) float32 in the embodiment's order."""
    stamp_ns: int | None
    """Stamp of the observation that caused the action [ns]. For a hold: stamp of the present
    observation, None without an observation."""
    held: str = ""
    """Reason for a hold; empty if the action came from the policy."""


class Observe(Protocol):
    """Function that returns the present observation to a control loop."""

    def __call__(self, *, images: bool) -> Observation:
        """Return the present observation; raises ObservationError, which says why, if none exists.

        Images are included only on request: their conversion is the most expensive part.
        """
        ...


class ControlLoop:
    """Real-time control: ``tick`` at ``control_hz``, inference on one worker thread."""

    def __init__(
        self,
        policy: Policy,
        embodiment: Embodiment,
        replan_steps: int,
        max_chunk_age_s: float = 10.0,
        clock: Clock | None = None,
    ):
        """Make a loop and start its worker thread; ``close`` ends the thread.

        Only the thread calls the policy. The next inference begins after ``replan_steps`` consumed
        actions, or earlier if the queue would become empty during that inference. Actions are
        dropped if their observation is older than ``max_chunk_age_s`` on the steady ``clock``.

        Raises:
            ConfigError: ``replan_steps`` is out of range.
        """
        _check_replan_steps(replan_steps, policy)
        self.embodiment = embodiment
        self.replan_steps = replan_steps
        self.max_chunk_age_s = max_chunk_age_s
        self.queue = ChunkQueue(embodiment.action_dims)
        self.latency = LatencyStats(skip=1)
        """Durations of inference, without the first one."""
        self.counts: Counter[str] = Counter()
        """``inferences``, ``failed``, ``discarded`` (begun before a reset), ``expired``,
        ``held`` (ticks)."""
        self._clock = clock or WallClock()
        self._worker = InferenceWorker(policy, self._clock)
        self._delays: deque[int] = deque(maxlen=10)
        self._generation = 0
        self._started_at = self._started_tick = self._ticks = 0
        self._last: np.ndarray | None = None
        self._fault, self._acted = "", False

    def reset(self, seed: int) -> None:
        """Begin an episode whose policy noise is drawn from ``seed``."""
        self.clear()
        self._last = None
        self._worker.reset(seed)

    def clear(self) -> None:
        """Forget planned actions and a running inference (a new instruction, a stop)."""
        self._generation += 1
        self.queue.clear()
        self._fault, self._acted = "", False

    def tick(self, observe: Observe) -> Tick:
        """Return the action for the present tick; never waits for the policy.

        ``observe`` is called with images only at a tick that begins an inference.
        """
        self._ticks += 1
        self._collect()
        try:
            stamp_ns = observe(images=False).stamp_ns
            if self.queue.expire(stamp_ns - round(self.max_chunk_age_s * 1e9)):
                self.counts["expired"] += 1
                self._fault = (
                    f"actions from an observation older than {self.max_chunk_age_s} s dropped"
                )
            if not self._worker.busy and self._wants_inference():
                observation = observe(images=True)
                self._started_at, self._started_tick = self.queue.consumed, self._ticks
                self._worker.submit(observation, self._generation)
        except ObservationError as error:
            return self.hold(str(error))
        except Exception as error:  # whatever an input does, the node lives on and holds
            return self.hold(failure_text(error, "the inputs cannot be read"))
        queued = self.queue.pop()
        if queued is None:
            late = QUEUE_EMPTY if self._acted else NO_CHUNK
            return self._hold(self._fault or late, stamp_ns)
        self._last, self._acted = queued.action, True
        return Tick(action=queued.action, stamp_ns=queued.stamp_ns)

    def hold(self, reason: str) -> Tick:
        """Forget planned actions, as ``clear`` does, and return a hold."""
        self.clear()
        return self._hold(reason, None)

    def close(self) -> None:
        """End the worker thread; a running inference is abandoned."""
        self._worker.close()

    def _wants_inference(self) -> bool:
        spare = len(self.queue) - max(self._delays, default=0)
        return spare <= 0 or self.queue.consumed - self._started_at >= self.replan_steps

    def _collect(self) -> None:
        result = self._worker.take()
        if result is None:
            return
        self.counts["inferences"] += 1
        self.latency.add(result.seconds)
        if result.generation != self._generation:
            self.counts["discarded"] += 1
            return
        if result.error:
            self.counts["failed"] += 1
            self._fault = result.error
            return
        if self.counts["inferences"] > 1:
            self._delays.append(self._ticks - self._started_tick)
        assert result.chunk is not None
        try:
            self.queue.merge(result.chunk, self._started_at)
            self._fault = ""
        except ActionError as error:
            self.counts["failed"] += 1
            self._fault = str(error)

    def _hold(self, reason: str, stamp_ns: int | None) -> Tick:
        self.counts["held"] += 1
        self._last = self.embodiment.hold_action(self._last)
        return Tick(action=self._last, stamp_ns=stamp_ns, held=reason)


def _check_replan_steps(replan_steps: int, policy: Policy) -> None:
    horizon = policy.contract.horizon
    if not 0 < replan_steps <= horizon:
        raise ConfigError(f"replan_steps is {replan_steps}, expected 1 to the horizon {horizon}")
