"""Files and folders that appear whole or not at all, and JSON that is checked to be an object.

What is being written lies in a hidden folder beside its place, ``.NAME.z1-XXXXXXXX``, whose owner
file is locked by the process that writes. A killed command's folder is thus told from everything
else, and ``sweep`` removes it; nothing that we did not make is ever removed.
"""

import ctypes
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from z1_ros.errors import CheckpointError, ConfigError

OWNER = ".z1-owner"
"""File of a staging folder that its process holds locked."""
JSON_LIMIT = 16 << 20
"""Largest JSON file that is read [bytes]; an index of 100,000 tensors has 10 MB."""
MAX_KEY, MAX_DEPTH = 1000, 64
SHOWN = 60
"""Characters of a wrong value that an error shows."""
_SIGNATURE = "z1_ros staging folder"
_STAGING = re.compile(r"\.(?P<name>.+)\.z1-[a-z0-9_]{8}")
_OLDER = ".z1-older"
_DEV = ("/", "dev")


def real_place(path: Path) -> Path:
    """Return the absolute path of what ``path`` names, links followed; it need not exist."""
    return Path(os.path.realpath(path.expanduser()))


@contextmanager
def staging(place: Path) -> Iterator[Path]:
    """Give a free path of the name of ``place`` in a hidden folder beside it, for the time being.

    What is left in the folder vanishes when the block ends.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    folder, owner = _claim(place)
    try:
        yield folder / place.name
    finally:
        _discard(folder, place)
        owner.close()


def _claim(place: Path) -> tuple[Path, IO[str]]:
    """Make a staging folder; returns it and its owner file, locked until that is closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.z1-", dir=place.parent))
        with suppress(FileNotFoundError):  # swept at this moment: once more
            owner = (folder / OWNER).open("x", encoding="utf-8")
            with suppress(OSError):  # on a file system without locks nothing is ever swept
                fcntl.flock(owner, fcntl.LOCK_EX)
            owner.write(f"{_SIGNATURE} of process {os.getpid()}\n")
            owner.flush()
            if (folder / OWNER).exists():
                return folder, owner
            owner.close()


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which becomes ``path`` in one step when the block ends.

    A device or pipe, such as ``/dev/stdout``, is given as it is: it cannot be replaced.
    """
    if _is_device(path):
        yield path
        return
    place = real_place(path)
    with staging(place) as partial:
        yield partial
        partial.replace(place)


def _is_device(path: Path) -> bool:
    is_regular = path.is_dir() or (path.is_file() and path.parts[:2] != _DEV)
    return path.exists() and not is_regular


@contextmanager
def staged_directory(path: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of ``path`` in one step when the block ends.

    What was there stays whole until that moment. Where ``path`` is a link, what it points to is
    replaced.
    """
    place = real_place(path)
    sweep(place.parent)
    with staging(place) as partial:
        partial.mkdir()
        yield partial
        if not (place.exists() and _exchange(partial, place)):
            older = partial.with_name(_OLDER)
            if place.exists():
                place.rename(older)
            partial.rename(place)
            if older.exists():
                older.rename(partial)  # from here on it is to be removed, not to be put back


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; returns whether the system and the file system can."""
    libc = ctypes.CDLL(None)
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    call: Any = getattr(libc, "renameat2", None)
    return bool(call) and not call(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange)


def _discard(folder: Path, place: Path) -> None:
    """Remove a staging folder; what was about to be replaced is put back."""
    older = folder / _OLDER
    if older.exists() and not place.exists():
        older.rename(place)
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name == OWNER:
                continue  # comes last: without it nobody would know whose the rest is
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        (folder / OWNER).unlink()
        folder.rmdir()


def sweep(folder: Path) -> None:
    """Remove what killed commands left unfinished in ``folder``; what is in use stays."""
    for found in folder.glob(".*.z1-*"):
        owner, named = found / OWNER, _STAGING.fullmatch(found.name)
        if named is None or found.is_symlink():
            continue
        with suppress(OSError):
            if not owner.is_file():
                found.rmdir()  # where it is empty: killed before or after all else
                continue
            with owner.open("r+", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stream.readline().startswith(_SIGNATURE):
                    _discard(found, folder / named["name"])
                elif not owner.stat().st_size:
                    owner.unlink()
                    found.rmdir()


def require_writable(path: Path) -> None:
    """Check that something new can take the place of ``path``, and sweep what is left there.

    Raises:
        ConfigError: It cannot: no permission, a parent that is a file, a mount point.
    """
    if _is_device(path):
        return
    place = real_place(path)
    parent = next(folder for folder in place.parents if folder.exists())
    if not parent.is_dir():
        raise ConfigError(f"{path} cannot be written: {parent} is not a folder")
    try:
        if os.path.ismount(place):
            raise ConfigError(f"{path} is a mount point; name a folder inside it")
        sweep(parent)
        with staging(parent / place.name) as partial:
            partial.touch()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror} ({parent})") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step, creating its folder."""
    with staged_file(path) as partial:
        partial.write_text(text, "utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON-ready ``data`` to ``path`` in one step."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file at once; raises OSError if it is no regular one or has over ``limit`` bytes."""
    # A pipe without a writer would be waited for otherwise.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        if found.st_size > limit:
            raise OSError(f"{path} has {found.st_size:,} bytes, expected at most {limit:,}")
        return stream.read(limit)


def parse_json(data: bytes) -> Any:
    """Parse JSON strictly: each key once, and all text such that it can be written again.

    Raises:
        ValueError: It is none.
        RecursionError: It is nested too deeply.
    """
    parsed = json.loads(data.decode("utf-8"), object_pairs_hook=_each_once)
    if b"\\ud" in data.lower():
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # half a surrogate pair raises
    level = [parsed]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
    if level:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    return parsed


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def shown(value: Any) -> str:
    """Return a value as errors show it: in one line, cut where it is long."""
    text = f"{type(value).__name__} of {len(value)}" if isinstance(value, (list, dict)) else ""
    text = text or ("null" if value is None else repr(value) if _is_short(value) else "a long one")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _is_short(value: Any) -> bool:
    # Python refuses to print numbers of more than 4300 digits.
    return not isinstance(value, int) or value.bit_length() < 1000


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    for name in made:
        if not name.isprintable() or len(name) > MAX_KEY:
            raise ValueError(f"key {shown(name)} is not printable, or too long")
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in made if names.count(n) > 1)!r} stands twice")
    return made


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that another program wrote; raises CheckpointError if it is none."""
    try:
        data = parse_json(read_bytes(path, JSON_LIMIT))
    except FileNotFoundError as error:
        raise CheckpointError(f"no file {path}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def file_stamp(path: Path) -> tuple[int, int, int, int]:
    """Return what changes when a file is written: inode, size [bytes], two times of change [ns]."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
