"""Task experts: one VLM and several action experts; the instruction selects the action expert.

Z-1 trains one policy per task with a frozen VLM, so its policies differ only in the action expert.
A bundle may contain several such task experts in addition to the base expert.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from z1_ros.errors import BundleError

BASE = ""
"""Name of the base expert, stored in ``model.safetensors`` and ``denoise.onnx``."""
VLM_PARTS = ("vision", "projector", "vlm")
"""Modules of ``Pi05`` that all experts share."""
EXPERT_PARTS = ("expert", "time", "action_in_proj", "action_out_proj")
"""Modules of ``Pi05`` that are different in each expert."""
_FILE = re.compile(r"(?:expert_(?P<w>.+)\.safetensors|denoise_(?P<g>.+)\.onnx(?:\.data)?)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskExpert:
    """An action expert for some instructions."""

    instructions: tuple[str, ...]
    """Shell-style patterns of the expert's instructions, e.g. ``open the * drawer``."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the expert, in the format of a manifest's ``made_by``."""

    def __post_init__(self) -> None:
        """Check types; raises ValueError."""
        texts = self.instructions if isinstance(self.instructions, tuple) else ()
        if not texts or not all(isinstance(t, str) and normalize_instruction(t) for t in texts):
            raise ValueError("an expert's instructions must be a list of patterns, none empty")
        if not isinstance(self.made_by, Mapping):
            raise ValueError("made_by of an expert must be an object")

    def follows(self, instruction: str) -> bool:
        """Return whether one of the patterns matches the instruction."""
        text = normalize_instruction(instruction)
        return any(fnmatchcase(text, normalize_instruction(p)) for p in self.instructions)


def normalize_instruction(text: str) -> str:
    """Return ``text`` in lower case with single spaces and without a final full stop."""
    return " ".join(text.replace("_", " ").lower().split()).rstrip(" .!")


def choose_expert(experts: Mapping[str, TaskExpert], instruction: str) -> str:
    """Return the expert that matches an instruction, else ``BASE``; BundleError if several do."""
    found = [name for name, expert in experts.items() if expert.follows(instruction)]
    if len(found) > 1:
        raise BundleError(
            f"the experts {' and '.join(sorted(found))} both follow {instruction!r}; their "
            "patterns must not overlap"
        )
    return found[0] if found else BASE


def check_experts(experts: Mapping[str, TaskExpert]) -> None:
    """Raise ValueError for a name that cannot be part of a file name, or for overlapping patterns.

    The check tests each pattern as an instruction. It misses some overlaps; ``choose_expert``
    reports those when an instruction matches several experts.
    """
    for name, expert in experts.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(f"expert {name!r} must be named with letters, digits, _ and - alone")
        for pattern in expert.instructions:
            choose_expert(experts, pattern)


def weights_file(expert: str) -> str:
    """Return the name of the file that contains an expert's tensors."""
    return f"expert_{expert}.safetensors"


def denoise_graph(expert: str) -> str:
    """Return the name of an expert's denoise graph: ``denoise`` or ``denoise_<name>``."""
    return f"denoise_{expert}" if expert else "denoise"


def check_expert_files(experts: Iterable[str], files: Iterable[str], bundle: str) -> None:
    """Raise BundleError unless ``files`` has the weights of exactly the given ``experts``."""
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
    """Return whether a tensor of the network belongs to the action expert."""
    return name.split(".", 1)[0] in EXPERT_PARTS
