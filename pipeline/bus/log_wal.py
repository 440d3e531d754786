"""Moves the WAL of a file into it while other threads write.

A checkpoint waits for the disk (fsync), some milliseconds or, on a busy disk, a second. SQLite lets
writers go on while another connection copies the WAL (https://www.sqlite.org/wal.html, a passive
checkpoint). Only to cut the WAL it must be copied wholly, and nobody may write.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import RLock

from pipeline.bus.sqlite_file import SqliteFile, connect

# KiB; a reader reads each record once. By default each of its 20 connections would keep 2 MB.
_CACHE = 256
_TRIES = 8  # copies until one finds that nothing was written meanwhile


class LockedConnection:
    """A connection and the lock held while it is used: closing it in use crashes the process."""

    def __init__(self, path: Path) -> None:
        self.lock = RLock()
        self.connection = connect(path)
        self.connection.execute(f"PRAGMA cache_size = {-_CACHE}")


def settle(
    file: SqliteFile, aside: LockedConnection, writing: RLock, closed: Callable[[], bool]
) -> None:
    """Copies the WAL by the connection `aside`; cuts it as soon as nothing was written meanwhile.

    Writers hold `writing`. They wait for the cut alone, for which nothing is left to be copied.
    Where they write without a break, the WAL stays long, and a later call tries again.
    """
    before = None
    for _ in range(_TRIES):
        with writing:
            if closed():
                return
            now = file.connection.total_changes
            if now == before:
                file.checkpoint()
                return
        with aside.lock:
            if closed():
                return
            file.copy_wal(aside.connection)
        before = now
