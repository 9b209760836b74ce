"""The queue between a policy that plans in chunks and a robot that moves step by step.

Positions in it are counted in actions *really consumed*, never in time: a policy that estimated
its delay from a clock dropped the wrong actions and jerked (github.com/huggingface/lerobot,
issue 4223, fixed in 4454). A robot that stood still during inference consumed
nothing, so it then starts with the chunk's first action.
"""

from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ActionError
from z1_ros.specs import ordered_actions
from z1_ros.types import ActionChunk


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedAction:
    """One action on its way to the robot."""

    action: np.ndarray
    """(action_dim,) float32 in the queue's order of dimensions."""
    stamp_ns: int
    """Stamp of the observation its chunk was inferred from [ns]."""


class ChunkQueue:
    """Actions waiting to be executed; a new chunk replaces what is left of the old one."""

    def __init__(self, dims: tuple[str, ...]):
        """Make an empty queue.

        Args:
            dims: Action dimensions in the robot's order; chunks may have them in another order.
        """
        self.dims = dims
        self.consumed = 0
        """Actions handed out since the queue was made."""
        self.refused = 0
        """Chunks dropped as a whole."""
        self._actions = np.zeros((0, len(dims)), np.float32)
        self._stamp_ns = 0

    def __len__(self) -> int:
        return len(self._actions)

    def merge(self, chunk: ActionChunk, started_at: int) -> int:
        """Put ``chunk`` in place of the leftover and return how many of its actions are past.

        Args:
            chunk: What the policy plans.
            started_at: ``consumed`` at the moment its inference began.

        Raises:
            ActionError: The chunk is malformed; all of it is dropped and the leftover stays.
        """
        actions = self._checked(chunk)
        delay = self.consumed - started_at
        if delay < 0:
            raise ValueError(f"inference cannot begin at {started_at}, after {self.consumed}")
        self._actions = actions[delay:]
        self._stamp_ns = chunk.stamp_ns
        return min(delay, len(actions))

    def pop(self) -> QueuedAction | None:
        """Hand out the next action, or None if there is none."""
        if not len(self._actions):
            return None
        action, self._actions = self._actions[0], self._actions[1:]
        self.consumed += 1
        return QueuedAction(action=action, stamp_ns=self._stamp_ns)

    def leftover(self) -> np.ndarray:
        """Return a copy (n, action_dim) of the actions not yet consumed."""
        return self._actions.copy()

    def expire(self, oldest_ns: int) -> bool:
        """Empty the queue if its chunk saw the world before ``oldest_ns``; say whether it did."""
        expired = bool(len(self)) and self._stamp_ns < oldest_ns
        if expired:
            self.clear()
        return expired

    def clear(self) -> None:
        """Drop what is left; ``consumed`` goes on counting."""
        self._actions = self._actions[:0]

    def _checked(self, chunk: ActionChunk) -> np.ndarray:
        """Return the chunk's actions (n, action_dim) in the queue's order of dimensions."""
        try:
            actions = ordered_actions(chunk.actions, self.dims, chunk.dims, ndim=2)
            if not len(actions):
                raise ActionError("it holds no action")
        except ActionError as error:
            self.refused += 1
            raise ActionError(f"action chunk dropped: {error}") from error
        return actions.astype(np.float32)
