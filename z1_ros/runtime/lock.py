"""A lock on a run's folder, so that two commands do not mix their logs and checkpoints."""

import contextlib
import errno
import fcntl
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from z1_ros.errors import ConfigError

LOCK_FILE = ".z1-lock"
_BEGINNING = "process "
_SHOWN_BYTES = 300
_IN_USE = (errno.EWOULDBLOCK, errno.EACCES)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock ``folder`` until the block or this process ends; create the folder if necessary.

    The kernel releases the lock when its process ends for any reason. Child processes do not
    inherit it. On NFS it works across machines if the server supports locks. A file system without
    locks (``nolock``) refuses nobody. The lock, the file ``.z1-lock``, is removed at the end.

    Raises:
        ConfigError: Another process, named in the message, has locked the folder. Or a file of
            that name is not a lock file of z1_ros; it is not changed.
    """
    path = folder / LOCK_FILE
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _open_locked(path)
    try:
        os.ftruncate(descriptor, 0)
        command = shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])
        owner = f"{os.getpid()} on {os.uname().nodename} ({command[: _SHOWN_BYTES // 2]})"
        os.pwrite(descriptor, f"{_BEGINNING}{owner}".encode("utf-8", "replace"), 0)
        yield
    finally:
        # Delete the file before unlocking: a waiting process then detects that it was deleted.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        # Non-blocking, because a file of this name may be a pipe or a device.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        written = _first_words(descriptor)
        if written is None:
            os.close(descriptor)
            raise ConfigError(f"{path} is no lock of z1_ros; move it away")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # its owner removed it between open and lock
        except OSError as error:
            if error.errno not in _IN_USE:
                return descriptor
            holder = _first_words(descriptor) or "another process"
            os.close(descriptor)
            raise ConfigError(
                f"{path.parent} is in use by {holder}; wait for its end, stop it, or choose "
                "another folder"
            ) from None
        os.close(descriptor)


def _first_words(descriptor: int) -> str | None:
    """Return the text of a lock file, empty if new; None if the file is not a lock file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    text = os.pread(descriptor, _SHOWN_BYTES, 0).decode("utf-8", "replace")
    return " ".join(text.split()) if text.startswith(_BEGINNING) or not text else None
