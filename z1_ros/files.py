"""Files that a reader never sees half-written, and JSON that is checked to be an object."""

import json
import shutil
from pathlib import Path
from typing import Any

from z1_ros.errors import CheckpointError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Write JSON-ready ``data`` to ``path`` in one step."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that another program wrote; raises CheckpointError if it is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"no file {path}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def file_stamps(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return what changes when a file of ``directory`` is written; unfinished ones do not count.

    Returns:
        File name -> inode, size [bytes], time of the last change [ns].
    """
    found = {p.name: p.stat() for p in directory.glob("*") if p.suffix != ".tmp" and p.is_file()}
    return {name: (s.st_ino, s.st_size, s.st_mtime_ns) for name, s in found.items()}


def replace_directory(directory: Path, by: Path) -> None:
    """Rename ``by`` to ``directory``; what was there stays whole until that moment."""
    if not directory.exists():
        by.rename(directory)
        return
    older = directory.with_name(directory.name + ".older")
    shutil.rmtree(older, ignore_errors=True)
    directory.rename(older)
    by.rename(directory)
    shutil.rmtree(older)
