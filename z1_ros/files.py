"""Files that a reader never sees half-written."""

import json
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Write JSON-ready ``data`` to ``path`` in one step."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
