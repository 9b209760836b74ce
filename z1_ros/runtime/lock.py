"""A folder that one command at a time may use."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from z1_ros.errors import TrainingError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder; raises TrainingError if another process does."""
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(f"{folder} is in use") from error
        yield
