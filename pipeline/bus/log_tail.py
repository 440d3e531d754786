"""Follows a topic of a local log from outside its groups: nothing is kept for whoever follows.

A daemon may use the log meanwhile, also this process. https://www.sqlite.org/wal.html: a reader
never blocks the writer.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import OutsideError
from pipeline.ports import Entry

_BUSY = {5, 6}  # SQLite's primary result codes BUSY and LOCKED
_ROWS = """SELECT offset, key, value, trace FROM entries
    WHERE offset >= ? ORDER BY offset LIMIT ?"""


class LogTail:
    """The entries of `topic` from `offset` on, of the log in `folder`. Not thread-safe.

    `lost` counts the entries that retention deleted before they were read; `gap` is the first of
    the last such gap. Raises OutsideError when the log cannot be read or was made anew.
    """

    def __init__(self, folder: Path, topic: str, offset: int = 0) -> None:
        self.next = offset
        self.lost = self.gap = 0
        self._path = folder / f"{topic}.db"
        self._link: sqlite3.Connection | None = None
        self._inode = 0

    def poll(self, limit: int, most_bytes: int = 8 << 20) -> Sequence[Entry]:
        """Returns the next entries, at most `limit` and about `most_bytes`; none if none came."""
        try:
            if not self._opened():
                return []
            return self._read(limit, most_bytes)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
                return []
            msg = f"{self._path} cannot be read ({error}); is this the state folder of a daemon?"
            raise OutsideError(msg) from error

    def close(self) -> None:
        """Closes the connection; `poll` would open another."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _opened(self) -> bool:
        """Whether there is a log; a file in its place would have other entries at our offsets."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            return False  # nothing was ever published to this topic
        if self._link is None:
            link = _connect(self._path)
            if not _is_made(link):
                link.close()
                return False
            self._link, self._inode = link, self._inode or inode
        if inode != self._inode:
            msg = f"{self._path} was made anew; its offsets begin again, so record into a new place"
            raise OutsideError(msg)
        return True

    def _read(self, limit: int, most_bytes: int) -> list[Entry]:
        assert self._link is not None  # noqa: S101, it was opened
        found: list[Entry] = []
        size = 0
        with closing(self._link.execute(_ROWS, (self.next, limit))) as rows:
            for row in rows:
                found.append(Entry(0, *row))
                size += len(row[2])
                if size >= most_bytes:
                    break
        if found:
            if found[0].offset > self.next:
                self.gap = self.next
                self.lost += found[0].offset - self.next
            self.next = found[-1].offset + 1
        return found


def end(folder: Path, topic: str) -> int:
    """Returns the offset that the next entry of a topic will have; raises OutsideError."""
    path = folder / f"{topic}.db"
    if not path.exists():
        return 0
    try:
        with closing(_connect(path)) as link:
            if not _is_made(link):
                return 0
            sql = "SELECT seq + 1 FROM sqlite_sequence WHERE name = 'entries'"
            row = link.execute(sql).fetchone()
    except sqlite3.Error as error:
        msg = f"{path} cannot be read ({error}); is this the state folder of a daemon?"
        raise OutsideError(msg) from error
    return int(row[0]) if row else 0


def in_use(folder: Path) -> bool:
    """Returns whether a process uses the log in `folder`."""
    try:
        held = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(held)
    return False


def _is_made(link: sqlite3.Connection) -> bool:
    """Whether the file has its tables: a log that is being made has none yet."""
    sql = "SELECT count(*) FROM sqlite_master WHERE name = 'entries'"
    return bool(link.execute(sql).fetchone()[0])


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False, timeout=2.0
    )
