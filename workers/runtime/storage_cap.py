"""How large the state folder may be: the cap of the config, or what a smaller disk has."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.bus.disk_space import usual_spare
from pipeline.config.schema import Config, size_bytes

CAP_EVERY = 30.0  # s between two looks at how large the state folder may be


class StorageCap:
    """The bytes that the state folder may take now: `storage.cap`, or less on a smaller disk.

    A disk counts with what it has free, less what is to stay free, and with what the folder takes
    already. Thread safe; it looks every `CAP_EVERY` s.
    """

    def __init__(self, settings: Config, folder: Path) -> None:
        self._cap = size_bytes(settings.storage.cap)
        self._folder = folder
        self._lock = threading.Lock()
        self._known, self._due = 0, 0.0

    def __call__(self) -> int:
        with self._lock:
            if time.monotonic() >= self._due:
                self._known, self._due = self._measured(), time.monotonic() + CAP_EVERY
            return self._known

    def _measured(self) -> int:
        free = shutil.disk_usage(self._folder).free - usual_spare(self._folder)
        return min(self._cap, max(0, _size(self._folder) + free))


def _size(folder: Path) -> int:
    """Bytes of what grows in a state folder; a file that goes away meanwhile does not count."""
    total = 0
    for path in _grows(folder):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _grows(folder: Path) -> Iterator[Path]:
    """The folder may hold other things: it may be somebody's home."""
    for name in ("log", "evidence", "pictures"):
        yield from (folder / name).rglob("*")
    yield from folder.glob("alerts.jsonl*")
    yield from folder.glob("spool.*")
