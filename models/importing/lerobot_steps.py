"""Steps of the processors that LeRobot saves with a policy (``policy_preprocessor.json``).

Source: LeRobot ``src/lerobot/processor/pipeline.py``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from z1_ros.errors import CheckpointError
from z1_ros.files import read_json, shown

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"


class Step(NamedTuple):
    """One step of a processor."""

    name: str
    """Name under which LeRobot registers the step, or its class name."""
    config: Mapping[str, Any]
    """Settings of the step."""
    state_file: str | None
    """File with the step's tensors, in the same directory; its name depends on the release."""


def read_steps(path: Path) -> list[Step]:
    """Return the steps of a processor's JSON file; raises CheckpointError if it is malformed."""
    steps = read_json(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(f"{path} has no list of steps")
    return [_step(step, f"{path}: step {i}") for i, step in enumerate(steps)]


def _step(step: dict[str, Any], what: str) -> Step:
    name = step.get("registry_name") or step.get("class")
    config, state_file = step.get("config", {}), step.get("state_file")
    if not isinstance(name, str) or not isinstance(config, dict):
        raise CheckpointError(f"{what} needs a registry_name and an object as config")
    # The named file is read, so it must be in the directory of the JSON file.
    plain = isinstance(state_file, str) and Path(state_file).name == state_file
    if state_file is not None and not plain:
        raise CheckpointError(f"{what} has state_file {shown(state_file)}, not a plain file name")
    return Step(name, config, state_file)


def find_step(steps: list[Step], name: str) -> Step | None:
    """Return the step called ``name``, or None."""
    return next((step for step in steps if step.name == name), None)
