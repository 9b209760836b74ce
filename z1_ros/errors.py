"""Error classes. Each message says what is wrong, where, and what would be correct.

Every module may import this module; it imports no other module of z1_ros.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


class Z1Error(Exception):
    """Base of every error that a user can fix."""


class ConfigError(Z1Error, ValueError):
    """A setting is unknown, mistyped or out of range."""


class ContractMismatch(Z1Error, ValueError):
    """A model bundle and a robot disagree about cameras, state, actions or rate."""


class BundleError(Z1Error, ValueError):
    """A model bundle is missing, incomplete or corrupted."""


class CheckpointError(Z1Error, ValueError):
    """A checkpoint's tensors do not fit the network."""


class ObservationError(Z1Error, ValueError):
    """An observation lacks a camera or a field, or has the wrong shape or encoding."""


class StateJump(ObservationError):
    """A robot's state changed faster than the robot can move."""


class ActionError(Z1Error, ValueError):
    """An action has the wrong shape or dimensions, or is not finite."""


class SnapshotMismatch(Z1Error, ValueError):
    """A snapshot belongs to another simulator, version or scene."""


class SeedError(Z1Error, ValueError):
    """A training seed was used for evaluation, or an evaluation seed for training."""


class GraphicsUnavailable(Z1Error, RuntimeError):
    """An off-screen OpenGL context could not be created."""


class GraphError(Z1Error, RuntimeError):
    """A node of the graph did not start, did not reply, or ended."""


class ProcessLost(Z1Error, RuntimeError):
    """A worker process ended before its job was done."""


class BackendUnavailable(Z1Error, RuntimeError):
    """An inference library is not installed, or cannot run this model here."""


class TrainingError(Z1Error, RuntimeError):
    """Training cannot continue, or a checkpoint belongs to other settings."""


class Diverged(TrainingError):
    """Training diverged: the policy has become useless."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``Known: a, b. Did you mean 'a'?`` for an unknown ``name``."""
    known = sorted(known)
    hint = f"Known: {', '.join(known)}." if known else "None exist."
    near = difflib.get_close_matches(name, known, n=1)
    return f"{hint} Did you mean {near[0]!r}?" if near else hint


def first_difference(name: str, one: Any, two: Any) -> str:
    """Return a text with the first difference of two values; empty if they are equal.

    The values, called ``name``, are dataclasses, mappings, sequences or plain values.
    """
    if is_dataclass(one) and is_dataclass(two):
        one, two = asdict(one), asdict(two)  # type: ignore[arg-type]
    if isinstance(one, Mapping) and isinstance(two, Mapping) and one.keys() == two.keys():
        pairs = [(f"{name}.{key}", one[key], two[key]) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)) and len(one) == len(two):
        pairs = [(f"{name}[{at}]", a, b) for at, (a, b) in enumerate(zip(one, two, strict=True))]
    else:
        return "" if one == two else f"{name} ({one!r} and {two!r})"
    return next(filter(None, (first_difference(*pair) for pair in pairs)), "")
