"""Task experts: one VLM and several action experts, of which the instruction chooses one.

Z-1 trains one policy per task and leaves the VLM alone, so its policies differ only in the action
expert. A bundle may hold several such task experts beside its own, the base expert.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from z1_ros.errors import BundleError

BASE = ""
"""Name of the expert in ``model.safetensors`` and ``denoise.onnx``."""
VLM_PARTS = ("vision", "projector", "vlm")
"""Modules of ``Pi05`` that all experts share."""
EXPERT_PARTS = ("expert", "time", "action_in_proj", "action_out_proj")
"""Modules of ``Pi05`` that each expert has of its own."""
_FILE = re.compile(r"(?:expert_(?P<w>.+)\.safetensors|denoise_(?P<g>.+)\.onnx(?:\.data)?)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskExpert:
    """An action expert for some instructions."""

    instructions: tuple[str, ...]
    """What it follows: shell-style patterns, e.g. ``open the * drawer``."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """What made it, as a manifest's ``made_by``."""

    def __post_init__(self) -> None:
        """Check types; raises ValueError."""
        given = self.instructions
        if not (isinstance(given, tuple) and given and all(_is_text(text) for text in given)):
            raise ValueError("an expert's instructions must be a list of patterns, none empty")
        if not isinstance(self.made_by, Mapping):
            raise ValueError("made_by of an expert must be an object")

    def follows(self, instruction: str) -> bool:
        """Whether one of the patterns matches."""
        text = normalize_instruction(instruction)
        return any(fnmatchcase(text, normalize_instruction(p)) for p in self.instructions)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(normalize_instruction(value))


def normalize_instruction(text: str) -> str:
    """Return ``text`` without what does not change its meaning: case, spacing, a final stop."""
    return " ".join(text.replace("_", " ").lower().split()).rstrip(" .!")


def choose_expert(experts: Mapping[str, TaskExpert], instruction: str) -> str:
    """Return the name of the expert that follows an instruction, ``BASE`` if none does.

    Raises:
        BundleError: Several do.
    """
    found = [name for name, expert in experts.items() if expert.follows(instruction)]
    if len(found) > 1:
        raise BundleError(
            f"the experts {' and '.join(sorted(found))} both follow {instruction!r}; their "
            "patterns must not overlap"
        )
    return found[0] if found else BASE


def check_experts(experts: Mapping[str, TaskExpert]) -> None:
    """Raise ValueError for a name that is no part of a file name, or for overlapping patterns.

    A pattern, read as an instruction, is the witness of an overlap. Some overlaps have no such
    witness; those are found when an instruction meets them.
    """
    for name, expert in experts.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(f"expert {name!r} must be named with letters, digits, _ and - alone")
        for pattern in expert.instructions:
            choose_expert(experts, pattern)


def weights_file(expert: str) -> str:
    """Return the name of the file with an expert's tensors."""
    return f"expert_{expert}.safetensors"


def denoise_graph(expert: str) -> str:
    """Return the name of the graph that is an expert's: ``denoise`` or ``denoise_<name>``."""
    return f"denoise_{expert}" if expert else "denoise"


def check_expert_files(experts: Iterable[str], files: Iterable[str], bundle: str) -> None:
    """Raise BundleError unless the weights of all ``experts``, and of no others, are there."""
    experts, files = set(experts), set(files)
    for name in sorted(experts):
        if weights_file(name) not in files:
            raise BundleError(f"bundle {bundle} is incomplete: {weights_file(name)} is missing")
    for file in sorted(files):
        found = _FILE.fullmatch(file)
        if found and (found["w"] or found["g"]) not in experts:
            raise BundleError(
                f"bundle {bundle} holds {file} but its manifest names no such expert; experts: "
                f"{', '.join(sorted(experts)) or 'none'}"
            )


def is_expert_tensor(name: str) -> bool:
    """Whether a tensor of the network belongs to the action expert."""
    return name.split(".", 1)[0] in EXPERT_PARTS
