"""Rewards of a group's rollouts to advantages: arrays only.

Source: GRPO (arXiv 2402.03300, Eq. 4), Z-1 (arXiv 2606.31846) §3.1.2 and §3.4.
"""

from typing import Literal

import numpy as np

from z1_ros.errors import ConfigError

Calibration = Literal["none", "decay", "penalty"]
"""How the reward of a success depends on when it comes."""
EPSILON = 1e-6


def calibrated_returns(
    success: np.ndarray, chunks: np.ndarray, gamma: float, calibration: Calibration
) -> np.ndarray:
    """Return the reward of each rollout (G,) float64.

    Args:
        success: Whether each rollout reached its task (G,).
        chunks: Chunks until it first did (G,); not used for failures.
        gamma: Decay per chunk, in (0, 1].
        calibration: ``none`` (1 or 0), or ``decay`` and ``penalty`` (γ^chunks or 0).
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

    Returns are centred and divided by their population standard deviation. A group that succeeded
    throughout tells only who was faster. With ``decay`` it is compared with its slowest member,
    A = R - min R, so that success is never pushed down; with ``penalty`` it is normalised as any
    other group.

    Args:
        returns: Calibrated rewards (G,).
        success: Whether each rollout reached its task (G,).
        calibration: As in ``calibrated_returns``.
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
    """Return advantages chunk by chunk (G, longest): among the rollouts that were still running.

    A rollout that runs on while others of its group are done already has little left to gain;
    what it does then is compared with those who also run on, not with the whole group.

    Args:
        advantages: Of each rollout, from ``group_advantages`` (G,).
        returns: Calibrated rewards (G,).
        success: Whether each rollout reached its task (G,).
        lengths: Chunks of each rollout (G,).
    """
    advantages, returns = np.asarray(advantages, np.float64), np.asarray(returns, np.float64)
    alive = np.arange(int(np.max(lengths))) < np.asarray(lengths)[:, None]
    if np.all(success) or np.ptp(returns) == 0:
        return np.where(alive, advantages[:, None], 0.0)
    running = np.maximum(alive.sum(0), 1)
    # Advantages are returns less a baseline, times one scale: only the baseline is another.
    scale = np.ptp(advantages) / np.ptp(returns)
    mean = (alive * returns[:, None]).sum(0) / running
    return np.where(alive, (returns[:, None] - mean) * scale, 0.0)


def passes_filter(mean_return: float, low: float, high: float) -> bool:
    """Return whether a group is worth training on: its mean reward is within the bounds."""
    return low <= mean_return <= high
