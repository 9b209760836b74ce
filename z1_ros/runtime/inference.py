"""Inference on a thread of its own, so that a control tick never waits for it."""

import queue
import threading
from dataclasses import dataclass

from z1_ros.errors import Z1Error
from z1_ros.policy.base import Policy
from z1_ros.runtime.clock import Clock
from z1_ros.types import ActionChunk, Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceResult:
    """Outcome of one inference."""

    generation: int
    """The number it was submitted with; a reset in between makes it worthless."""
    seconds: float
    """How long it took [s]."""
    chunk: ActionChunk | None = None
    """The action chunk, or None if it failed."""
    error: str = ""
    """One sentence on why it failed."""


def failure_text(failure: Exception) -> str:
    """Return one sentence on why an inference failed."""
    if isinstance(failure, Z1Error):
        return str(failure)
    return f"inference failed: {type(failure).__name__}: {failure}"


class InferenceWorker:
    """Runs ``policy.infer`` for one observation at a time."""

    def __init__(self, policy: Policy, clock: Clock):
        self._policy = policy
        self._clock = clock
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._results: queue.SimpleQueue[InferenceResult] = queue.SimpleQueue()
        self._busy = False
        # A daemon: a hung inference must not keep a process alive that was asked to stop.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a result is outstanding."""
        return self._busy

    def submit(self, observation: Observation, generation: int) -> None:
        """Ask for the actions that follow ``observation``; only while not busy."""
        self._busy = True
        self._requests.put((observation, generation))

    def reset(self, seed: int) -> None:
        """Re-seed the policy, in order with what was submitted: before the next observation."""
        self._requests.put(seed)

    def take(self) -> InferenceResult | None:
        """Return the result if it is there."""
        try:
            result = self._results.get_nowait()
        except queue.Empty:
            return None
        self._busy = False
        return result

    def close(self) -> None:
        """Let the thread end after what it is doing now."""
        self._requests.put(None)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            if isinstance(request, int):
                self._policy.reset(request)
            else:
                self._results.put(self._infer(*request))

    def _infer(self, observation: Observation, generation: int) -> InferenceResult:
        started_s = self._clock.now_s()
        chunk, error = None, ""
        try:
            chunk = self._policy.infer(observation)
        except Exception as failure:  # whatever a backend raises, the robot must hold
            error = failure_text(failure)
        return InferenceResult(
            generation=generation,
            seconds=self._clock.now_s() - started_s,
            chunk=chunk,
            error=error,
        )
