"""One command at a time in a run's folder: two would mix their logs and checkpoints."""

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
    """Hold ``folder``, which is created if need be, until the block or this process ends.

    The kernel lets go of the lock with its process, however that ends, and processes that this
    one starts do not inherit it. On NFS it holds between machines where the server keeps locks;
    a file system that knows none (``nolock``) gives none, and nobody is refused.

    Args:
        folder: Folder of a run; the lock is its file ``.z1-lock``, which is removed at the end.

    Raises:
        ConfigError: Another process holds it; the sentence names that process. Or the file is
            none of ours, which is left as it is.
    """
    path = folder / LOCK_FILE
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _open_locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _who_we_are().encode("utf-8", "replace"), 0)
        yield
    finally:
        # While it is still ours: whoever waits on this file sees that it has lost its name.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Return the descriptor of the locked file that has the name ``path``."""
    while True:
        # Not blocking: nobody knows what a file of this name is.
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
            pass  # its holder removed it between our opening and locking it
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
    """Return what a lock's file says, empty at its very beginning; None if it is no such file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    text = os.pread(descriptor, _SHOWN_BYTES, 0).decode("utf-8", "replace")
    return " ".join(text.split()) if text.startswith(_BEGINNING) or not text else None


def _who_we_are() -> str:
    command = shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])
    return f"{_BEGINNING}{os.getpid()} on {os.uname().nodename} ({command[: _SHOWN_BYTES // 2]})"
