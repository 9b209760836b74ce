"""Rewards of a group's rollouts to advantages: arrays only.

Source: GRPO (arXiv 2402.03300, Eq. 4), Z-1 (arXiv 2606.31846) §3.1.2 and §3.4, RLinf's
``compute_grpo_advantages`` (unbiased), Dr. GRPO (none), RLOO (leave one out).
"""

import numpy as np

from z1_ros.errors import ConfigError, closest

CALIBRATION = ("none", "decay", "penalty")
NORMALIZATION = ("population", "unbiased", "none", "leave_one_out")
BASELINE = ("group", "alive")
EPSILON = 1e-6


def calibrated_returns(
    success: np.ndarray, chunks: np.ndarray, gamma: float, calibration: str
) -> np.ndarray:
    """Return the reward of each rollout (G,) float64.

    Args:
        success: Whether each rollout reached its task (G,).
        chunks: Chunks until it first did (G,); not used for failures.
        gamma: Decay per chunk, in (0, 1].
        calibration: ``none`` (1 or 0), or ``decay`` and ``penalty`` (γ^chunks or 0).
    """
    _require(calibration, CALIBRATION, "calibration")
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma is {gamma}, expected more than 0, at most 1")
    success = np.asarray(success, bool)
    base = 1.0 if calibration == "none" else gamma
    return np.where(success, base ** np.where(success, chunks, 0), 0.0)


def group_advantages(
    returns: np.ndarray, success: np.ndarray, normalization: str, calibration: str
) -> np.ndarray:
    """Return the advantage of each rollout of one group (G,) float64.

    A group that succeeded throughout tells only who was faster. With ``decay`` it is compared
    with its slowest member, A = R - min R, so that success is never pushed down; with
    ``penalty`` it is normalised as any other group.

    Args:
        returns: Calibrated rewards (G,).
        success: Whether each rollout reached its task (G,).
        normalization: Divide by the ``population`` or ``unbiased`` deviation, by nothing
            (``none``), or subtract the mean of the others (``leave_one_out``).
        calibration: As in ``calibrated_returns``.
    """
    _require(normalization, NORMALIZATION, "normalization")
    _require(calibration, CALIBRATION, "calibration")
    returns = np.asarray(returns, np.float64)
    if calibration == "decay" and np.all(success):
        return returns - returns.min()
    if np.ptp(returns) == 0:
        return np.zeros_like(returns)
    centred = returns - returns.mean()
    if normalization == "none":
        return centred
    if normalization == "leave_one_out":
        return centred * len(returns) / (len(returns) - 1)
    deviation = returns.std(ddof=1 if normalization == "unbiased" else 0)
    return centred / (deviation + EPSILON)


def chunk_advantages(
    advantages: np.ndarray,
    returns: np.ndarray,
    success: np.ndarray,
    lengths: np.ndarray,
    normalization: str = "population",
) -> np.ndarray:
    """Return advantages chunk by chunk (G, longest): of the rollouts that were still running.

    A rollout that runs on while others of its group are done already has little left to gain;
    what it does then is compared with those who also run on, not with the whole group.

    Args:
        advantages: Of each rollout, from ``group_advantages`` (G,).
        returns: Calibrated rewards (G,).
        success: Whether each rollout reached its task (G,).
        lengths: Chunks of each rollout (G,).
        normalization: As in ``group_advantages``.
    """
    advantages, returns = np.asarray(advantages, np.float64), np.asarray(returns, np.float64)
    alive = np.arange(int(np.max(lengths))) < np.asarray(lengths)[:, None]
    if np.all(success) or np.ptp(returns) == 0:
        return np.where(alive, advantages[:, None], 0.0)
    running = np.maximum(alive.sum(0), 1)
    if normalization == "leave_one_out":
        scale = running / np.maximum(running - 1, 1)
    else:
        # Advantages are returns less a baseline, times one scale: only the baseline is another.
        scale = np.ptp(advantages) / np.ptp(returns)
    mean = (alive * returns[:, None]).sum(0) / running
    return np.where(alive, (returns[:, None] - mean) * scale, 0.0)


def kept_groups(mean_returns: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return which groups are worth training on (n,) bool: mean reward within the bounds."""
    mean_returns = np.asarray(mean_returns, np.float64)
    return (mean_returns >= low) & (mean_returns <= high)


def _require(value: str, known: tuple[str, ...], name: str) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}. {closest(value, known)}")
