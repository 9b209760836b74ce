"""File of an evaluation's finished episodes, from which a stopped evaluation continues."""

import fcntl
import json
from pathlib import Path
from typing import Any, BinaryIO

from z1_ros.errors import ConfigError
from z1_ros.sim.episodes import EpisodeResult, episode_record

_FIELDS = {"task": str, "seed": int, "instruction": str, "success": bool, "steps": int}


class Journal:
    """A file next to the future report: settings on the first line, then one episode per line.

    It exists only if a report is requested, and only until the report is written.
    """

    def __init__(self, report: Path | None, settings: dict[str, Any]):
        """Read the episodes of an earlier run with the same settings; report None: no file.

        Raises:
            ConfigError: The file has other settings, is damaged, or is written by another process.
        """
        self.finished: list[EpisodeResult] = []
        """Finished episodes of the earlier run."""
        self.path = report and report.with_name(report.name + ".partial")
        self._stream: BinaryIO | None = None
        if self.path is None:
            return
        self._stream = self._open(self.path)
        self._stream.seek(0)
        data = self._stream.read()
        head = json.dumps(settings).encode() + b"\n"
        # An incomplete last line of a killed process is not an episode.
        whole = data[: data.rfind(b"\n") + 1]
        if whole or not head.startswith(data):
            self.finished = self._parse(whole or data, settings)
        self._stream.truncate(len(whole))
        if not whole:
            self._write(settings)

    def _open(self, path: Path) -> BinaryIO:
        """Open and lock the file, so that no other process writes to it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise self._damaged("it is no regular file")
        stream = path.open("a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            words = f"another evaluation is writing {path}; choose another --json"
            raise ConfigError(words) from None
        except OSError:
            pass  # the file system does not support locks
        return stream

    def _parse(self, data: bytes, settings: dict[str, Any]) -> list[EpisodeResult]:
        """Return the episodes of the file; raise ConfigError if its settings differ."""
        try:
            first, *records = [json.loads(line) for line in data.decode("utf-8").splitlines()]
        except (ValueError, RecursionError) as error:
            raise self._damaged("it is not readable as lines of JSON") from error
        if not isinstance(first, dict) or first.keys() != settings.keys():
            raise self._damaged("its first line does not hold the settings of an evaluation")
        if first != settings:
            name = next(name for name in settings if first[name] != settings[name])
            raise ConfigError(
                f"{self.path} holds episodes of an evaluation with other settings ({name} "
                f"{first[name]!r}, not {settings[name]!r}); delete it or choose another --json"
            )
        found: dict[tuple[str, int], EpisodeResult] = {}
        for number, record in enumerate(records, start=2):
            if not _is_episode(record) or (record["task"], record["seed"]) in found:
                raise self._damaged(f"line {number} is no episode, or one that it holds already")
            found[record["task"], record["seed"]] = EpisodeResult(**record)
        return list(found.values())

    def _damaged(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path} is damaged: {why}; delete it or choose another --json")

    def add(self, result: EpisodeResult) -> None:
        """Append a finished episode to the file."""
        self._write(episode_record(result))

    def _write(self, record: dict[str, Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(record).encode() + b"\n")
            self._stream.flush()

    def remove(self) -> None:
        """Delete the file; the report contains all episodes."""
        if self.path is not None and self._stream is not None:
            self.path.unlink(missing_ok=True)
            self._stream.close()


def _is_episode(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and record.keys() == _FIELDS.keys()
        and all(type(record[name]) is kind for name, kind in _FIELDS.items())
    )
