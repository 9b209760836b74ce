"""The queue of actions between a policy that infers chunks and a robot that executes single steps.

The queue counts *consumed actions*, never time. A policy that estimated its delay from a clock
dropped the wrong actions and moved with jerks (github.com/huggingface/lerobot, issue 4223, fixed in
4454). A robot that did not move during inference consumed no action, so it starts with the first
action of the chunk.
"""

from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ActionError
from z1_ros.specs import ordered_actions
from z1_ros.types import ActionChunk


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedAction:
    """One action for the robot, with the stamp of its observation."""

    action: np.ndarray
    """(action_dim,) float32 in the queue's order of dimensions."""
    stamp_ns: int
    """Stamp of the observation its chunk was inferred from [ns]."""


class ChunkQueue:
    """Queue of planned actions; a new chunk replaces the remaining actions of the old chunk."""

    def __init__(self, dims: tuple[str, ...]):
        """Make an empty queue; chunks may have ``dims`` in another order."""
        self.dims = dims
        self.consumed = 0
        """Number of actions that ``pop`` returned since the queue was made."""
        self.refused = 0
        """Number of malformed chunks that were dropped."""
        self._actions = np.zeros((0, len(dims)), np.float32)
        self._stamp_ns = 0

    def __len__(self) -> int:
        return len(self._actions)

    def merge(self, chunk: ActionChunk, started_at: int) -> int:
        """Replace the remaining actions by ``chunk``; return how many of its actions are skipped.

        ``started_at`` is the value of ``consumed`` when the inference of the chunk began.

        Raises:
            ActionError: The chunk is malformed; it is dropped and the queue does not change.
        """
        actions = self._checked(chunk)
        delay = self.consumed - started_at
        if delay < 0:
            raise ValueError(f"inference cannot begin at {started_at}, after {self.consumed}")
        self._actions = actions[delay:]
        self._stamp_ns = chunk.stamp_ns
        return min(delay, len(actions))

    def pop(self) -> QueuedAction | None:
        """Remove and return the next action, or None if the queue is empty."""
        if not len(self._actions):
            return None
        action, self._actions = self._actions[0], self._actions[1:]
        self.consumed += 1
        return QueuedAction(action=action, stamp_ns=self._stamp_ns)

    def expire(self, oldest_ns: int) -> bool:
        """Empty the queue if its observation is older than ``oldest_ns``; return whether it was."""
        expired = bool(len(self)) and self._stamp_ns < oldest_ns
        if expired:
            self.clear()
        return expired

    def clear(self) -> None:
        """Drop the remaining actions; ``consumed`` is not reset."""
        self._actions = self._actions[:0]

    def _checked(self, chunk: ActionChunk) -> np.ndarray:
        try:
            actions = ordered_actions(chunk.actions, self.dims, chunk.dims, ndim=2)
            if not len(actions):
                raise ActionError("it holds no action")
        except ActionError as error:
            self.refused += 1
            raise ActionError(f"action chunk dropped: {error}") from error
        return actions.astype(np.float32)
