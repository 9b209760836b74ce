"""Computation of advantages from the rewards of a group's rollouts.

Source: GRPO (arXiv 2402.03300, Eq. 4), Z-1 (arXiv 2606.31846) §3.1.2 and §3.4.
"""

from typing import Literal

import numpy as np

from z1_ros.errors import ConfigError

Calibration = Literal["none", "decay", "penalty"]
"""How the reward of a success depends on its time."""
EPSILON = 1e-6


def calibrated_returns(
    success: np.ndarray, chunks: np.ndarray, gamma: float, calibration: Calibration
) -> np.ndarray:
    """Return the reward of each rollout (G,) float64: 0 for a failure.

    A success (G,) after some chunks (G,) has the reward 1 (calibration ``none``), or γ^chunks
    (``decay`` and ``penalty``) with the decay per chunk 0 < γ ≤ 1.
    """
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma is {gamma}, expected more than 0, at most 1")
    success = np.asarray(success, bool)
    base = 1.0 if calibration == "none" else gamma
    return np.where(success, base ** np.where(success, chunks, 0), 0.0)


def group_advantages(
    returns: np.ndarray, success: np.ndarray, calibration: Calibration
) -> np.ndarray:
    """Return the advantage of each rollout of one group (G,) float64.

    Returns are centred and divided by their population standard deviation. If all rollouts succeed,
    they differ only in speed. With ``decay``, they are then compared with the slowest rollout,
    A = R - min R, so that no success gets a negative advantage. With ``penalty``, such a group is
    normalised like any other group. Returns and success are those of ``calibrated_returns`` (G,).
    """
    returns = np.asarray(returns, np.float64)
    if calibration == "decay" and np.all(success):
        return returns - returns.min()
    if np.ptp(returns) == 0:
        return np.zeros_like(returns)
    return (returns - returns.mean()) / (returns.std() + EPSILON)


def alive_advantages(
    advantages: np.ndarray, returns: np.ndarray, success: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return the advantage of each chunk, relative to the rollouts that still run at that chunk.

    A rollout that still runs after others of its group have ended can only reach a low return. Its
    later chunks are therefore compared only with other rollouts that still run.

    The arguments are the advantages of ``group_advantages``, the calibrated rewards, the success
    and the number of chunks of each rollout, all (G,). The result (G, longest) float64 is 0 after
    the end of a rollout.
    """
    advantages, returns = np.asarray(advantages, np.float64), np.asarray(returns, np.float64)
    alive = np.arange(int(np.max(lengths))) < np.asarray(lengths)[:, None]
    if np.all(success) or np.ptp(returns) == 0:
        return np.where(alive, advantages[:, None], 0.0)
    running = np.maximum(alive.sum(0), 1)
    # Advantages are (return - baseline) · scale; here the scale stays and the baseline changes.
    scale = np.ptp(advantages) / np.ptp(returns)
    mean = (alive * returns[:, None]).sum(0) / running
    return np.where(alive, (returns[:, None] - mean) * scale, 0.0)
