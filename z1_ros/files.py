"""Atomic writes of files and folders, and strict reading of JSON objects.

New content is written to a hidden staging folder next to its target, ``.NAME.z1-XXXXXXXX``. The
writing process locks an owner file in this folder. ``sweep`` therefore recognises and removes the
staging folders of killed commands, and never removes files that z1_ros did not make.
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
"""File of a staging folder that its process keeps locked."""
JSON_LIMIT = 16 << 20
"""Largest JSON file that is read [bytes]; an index of 100,000 tensors has 10 MB."""
MAX_KEY, MAX_DEPTH = 1000, 64
SHOWN = 60
"""Longest text of a wrong value in an error message [characters]."""
_SIGNATURE = "z1_ros staging folder"
_STAGING = re.compile(r"\.(?P<name>.+)\.z1-[a-z0-9_]{8}")
_OLDER = ".z1-older"
_DEV = ("/", "dev")


def real_place(path: Path) -> Path:
    """Return ``path`` as an absolute path with links resolved; it does not need to exist."""
    return Path(os.path.realpath(path.expanduser()))


@contextmanager
def staging(place: Path) -> Iterator[Path]:
    """Yield an unused path in a hidden staging folder next to ``place``, with the same name.

    The staging folder and its remaining content are deleted when the block ends.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    folder, owner = _claim(place)
    try:
        yield folder / place.name
    finally:
        _discard(folder, place)
        owner.close()


def _claim(place: Path) -> tuple[Path, IO[str]]:
    """Make a staging folder; return its path and its owner file, which is locked until closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.z1-", dir=place.parent))
        with suppress(FileNotFoundError):  # another process swept it just now: try again
            owner = (folder / OWNER).open("x", encoding="utf-8")
            with suppress(OSError):  # on a file system without locks, nothing is swept
                fcntl.flock(owner, fcntl.LOCK_EX)
            owner.write(f"{_SIGNATURE} of process {os.getpid()}\n")
            owner.flush()
            if (folder / OWNER).exists():
                return folder, owner
            owner.close()


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to; the file replaces ``path`` atomically when the block ends.

    For a device or pipe, such as ``/dev/stdout``, it yields ``path`` itself: it cannot be replaced.
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
    """Yield an empty folder that replaces ``path`` atomically when the block ends.

    The old content stays unchanged until then. If ``path`` is a link, its target is replaced.
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
                older.rename(partial)  # from here on it is removed and not restored


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically; return False if the system or the file system cannot do it."""
    libc = ctypes.CDLL(None)
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    call: Any = getattr(libc, "renameat2", None)
    return bool(call) and not call(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange)


def _discard(folder: Path, place: Path) -> None:
    """Remove a staging folder; restore a target that was not yet replaced."""
    older = folder / _OLDER
    if older.exists() and not place.exists():
        older.rename(place)
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name == OWNER:
                continue  # removed last: it marks the folder as a staging folder of z1_ros
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        (folder / OWNER).unlink()
        folder.rmdir()


def sweep(folder: Path) -> None:
    """Remove the staging folders of killed commands in ``folder``, except those in use."""
    for found in folder.glob(".*.z1-*"):
        owner, named = found / OWNER, _STAGING.fullmatch(found.name)
        if named is None or found.is_symlink():
            continue
        with suppress(OSError):
            if not owner.is_file():
                found.rmdir()  # an empty folder: killed before or after all other steps
                continue
            with owner.open("r+", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stream.readline().startswith(_SIGNATURE):
                    _discard(found, folder / named["name"])
                elif not owner.stat().st_size:
                    owner.unlink()
                    found.rmdir()


def require_writable(path: Path) -> None:
    """Sweep the folder of ``path``; raises ConfigError if ``path`` cannot be replaced."""
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
    """Write ``text`` to ``path`` atomically; create its folder if necessary."""
    with staged_file(path) as partial:
        partial.write_text(text, "utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON-compatible ``data`` to ``path`` atomically."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file; raises OSError if it is not a regular file or has more than ``limit`` bytes."""
    # Do not block on a pipe without a writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        if found.st_size > limit:
            raise OSError(f"{path} has {found.st_size:,} bytes, expected at most {limit:,}")
        return stream.read(limit)


def parse_json(data: bytes) -> Any:
    """Parse JSON strictly: no duplicate keys, and only text that can be encoded as UTF-8.

    Raises:
        ValueError: The data is not valid JSON.
        RecursionError: The data is nested too deeply.
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
    """Return a value as one line of text for error messages; long text is shortened."""
    if isinstance(value, (list, dict)):
        text = f"{type(value).__name__} of {len(value)}"
    elif isinstance(value, int) and value.bit_length() >= 1000:
        text = "a long one"  # Python refuses to print numbers of more than 4300 digits
    else:
        text = "null" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


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
    """Read a JSON object of another program; raises CheckpointError if the file is malformed."""
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
    """Return inode, size [bytes] and two times of change [ns]: they differ after a write."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
