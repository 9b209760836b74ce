"""Inference on a separate thread, so that a control tick never waits for it."""

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
    """Generation number passed to ``submit``; the caller drops results from before a reset."""
    seconds: float
    """Duration of the inference [s]."""
    chunk: ActionChunk | None = None
    """The action chunk, or None if the inference failed."""
    error: str = ""
    """Reason of the failure in one sentence; empty if the inference succeeded."""


def failure_text(failure: Exception, what: str = "inference failed") -> str:
    """Return one sentence that says why an inference failed, or ``what`` else a backend did."""
    if isinstance(failure, Z1Error):
        return str(failure)
    return f"{what}: {type(failure).__name__}: {failure}"


class InferenceWorker:
    """Runs ``policy.infer`` for one observation at a time."""

    def __init__(self, policy: Policy, clock: Clock):
        self._policy = policy
        self._clock = clock
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._results: queue.SimpleQueue[InferenceResult] = queue.SimpleQueue()
        self.busy = False
        """Whether a result is outstanding."""
        # A daemon thread: a hung inference must not keep a stopping process alive.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, observation: Observation, generation: int) -> None:
        """Start the inference of ``observation``; call it only while not ``busy``."""
        self.busy = True
        self._requests.put((observation, generation))

    def reset(self, seed: int) -> None:
        """Reset the policy with ``seed`` after the submitted observation and before the next."""
        self._requests.put(seed)

    def take(self) -> InferenceResult | None:
        """Return the result, or None if the inference is not finished."""
        try:
            result = self._results.get_nowait()
        except queue.Empty:
            return None
        self.busy = False
        return result

    def close(self) -> None:
        """End the thread after its present work."""
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
        except Exception as failure:  # the robot must hold after any error of a backend
            error = failure_text(failure)
        return InferenceResult(
            generation=generation,
            seconds=self._clock.now_s() - started_s,
            chunk=chunk,
            error=error,
        )
