"""One thread that thinks, so that the control tick never has to wait."""

import queue
import threading
from dataclasses import dataclass

from z1_ros.errors import Z1Error
from z1_ros.policy.base import Policy
from z1_ros.runtime.clock import Clock
from z1_ros.types import ActionChunk, Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Outcome of one inference."""

    generation: int
    """The number it was asked with; a reset in between makes it worthless."""
    seconds: float
    """How long it took [s]."""
    chunk: ActionChunk | None = None
    """The policy's answer, or None if it failed."""
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
        self._asked: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._busy = False
        # A daemon: a hung inference must not keep a process alive that was asked to stop.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether an answer is outstanding."""
        return self._busy

    def submit(self, observation: Observation, generation: int) -> None:
        """Ask for the actions that follow ``observation``; only while not busy."""
        self._busy = True
        self._asked.put((observation, generation))

    def reset(self, seed: int) -> None:
        """Re-seed the policy before the next observation, in order with what was asked."""
        self._asked.put(seed)

    def take(self) -> Answer | None:
        """Return the answer if it is there."""
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            return None
        self._busy = False
        return answer

    def close(self) -> None:
        """Let the thread end after what it is doing now."""
        self._asked.put(None)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            if isinstance(asked, int):
                self._policy.reset(asked)
            else:
                self._answers.put(self._infer(*asked))

    def _infer(self, observation: Observation, generation: int) -> Answer:
        started_s = self._clock.now_s()
        chunk, error = None, ""
        try:
            chunk = self._policy.infer(observation)
        except Exception as failure:  # whatever a backend throws, the robot must hold, not fall
            error = failure_text(failure)
        return Answer(
            generation=generation,
            seconds=self._clock.now_s() - started_s,
            chunk=chunk,
            error=error,
        )
