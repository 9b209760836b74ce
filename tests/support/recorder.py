"""Keeps hashes of all that rollouts are made of, to compare two runs of them bit for bit."""

import hashlib
from collections import defaultdict

import numpy as np


class Recorder:
    """Takes note of moves; ``note`` is what ``Collector.run`` asks for."""

    def __init__(self):
        self._moves = defaultdict(list)

    def note(self, turn, move, reply):
        """Hash the whole chunk, its log-probabilities, and what was seen next."""
        chunk = move.chunk
        parts = [chunk] if isinstance(chunk, np.ndarray) else [chunk.actions, chunk.log_probs]
        if reply.observation is not None:
            for named in (reply.observation.state, reply.observation.images):
                parts += [value for _, value in sorted(named.items())]
        kept = hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest()
        self._moves[turn.job.key, turn.segment].append((turn.chunk, reply.step, kept))

    @property
    def moves(self):
        """What was kept, by group and segment; equal for equal rollouts."""
        return dict(self._moves)
