"""The local log: the bus of an edge box. One SQLite file per topic, many threads, one process.

It survives `kill -9` at any moment; a `durable` topic also survives a power cut. Every topic has
one partition. https://www.sqlite.org/wal.html describes the guarantees of WAL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection, connect
from sqlite3 import Error as SqliteError
from threading import Lock, local
from urllib.parse import quote

from pipeline.bus.log_table import Retention, Table
from pipeline.bus.private import private_folder
from pipeline.bus.sqlite_file import lock
from pipeline.errors import OutsideError
from pipeline.ports import Assigned, Entry, Revoked

__all__ = ["LocalLog", "LogReader", "Retention", "appended", "between"]

_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AT_ONCE = 500
_SPAN = """SELECT (SELECT min(offset) FROM entries WHERE start >= ?),
    (SELECT max(offset) FROM entries WHERE start < ?)"""
_BEFORE = """SELECT coalesce(
    (SELECT max(offset) + 1 FROM entries WHERE offset < ? AND start NOT NULL),
    (SELECT min(offset) FROM entries))"""
_BEYOND = """SELECT coalesce((SELECT min(offset) - 1 FROM entries WHERE offset > ? AND start >= ?),
    (SELECT max(offset) FROM entries))"""
_ROWS = """SELECT offset, key, value, trace FROM entries
    WHERE offset >= ? AND offset <= ? ORDER BY offset LIMIT ?"""
_APPENDED = """SELECT appended, offset, key, value, trace FROM entries
    WHERE offset >= ? AND appended >= ? AND appended < ? ORDER BY offset LIMIT ?"""


class _Unflushed(local):
    """The records that one thread published and did not flush: topic -> (key, value, trace)."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[str, bytes, str]]] = {}
        self.sizes: dict[str, int] = {}


class LocalLog:
    """The topics stored in `folder`.

    `clock` returns ns UTC; it is called only when entries are appended. Raises OutsideError when
    another process uses the folder, or when a file in it is not a Fusewatch log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], int],
        retention: Mapping[str, Retention] | None = None,
        default: Retention | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._retention = dict(retention or {})
        self._default = default or Retention()
        self._opening = Lock()
        self._tables: dict[str, Table] = {}
        self._buffer = _Unflushed()
        self._reading: set[tuple[str, str]] = set()
        try:
            private_folder(folder)
        except OSError as error:
            msg = f"cannot write in {folder}: {error.strerror}"
            raise OutsideError(msg) from error
        self._lock = lock(folder / "lock", folder)
        try:
            for path in sorted(folder.glob("*.db")):
                self._table(path.stem)
        except BaseException:
            self.close()
            raise

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        """Buffers in this thread until `flush`; a large buffer is flushed early."""
        table = self._table(topic)
        size = self._buffer.sizes.get(topic, 0)
        if size and size + len(value) > table.flush_bytes:
            self._flush(topic)
            size = 0
        self._buffer.rows.setdefault(topic, []).append((key, bytes(value), trace))
        self._buffer.sizes[topic] = size + len(value)

    def flush(self) -> None:
        """Appends what this thread published, in one transaction per topic; on disk on return."""
        for topic in list(self._buffer.rows):
            self._flush(topic)

    def _flush(self, topic: str) -> None:
        self._table(topic).append(self._buffer.rows[topic])
        del self._buffer.rows[topic], self._buffer.sizes[topic]  # kept on DiskFull

    def discard(self) -> None:
        """Drops what this thread published and could not flush (DiskFull)."""
        self._buffer.rows.clear()
        self._buffer.sizes.clear()

    def reader(self, topic: str, group: str) -> LogReader:
        """Returns the only reader of `group`; it continues at the group's committed offset.

        Raises RuntimeError while another reader of the group is open.
        """
        table = self._table(topic)
        with self._opening:
            if (topic, group) in self._reading:
                msg = f"group {group} reads {topic} already: close its reader first"
                raise RuntimeError(msg)
            reader = LogReader(table, group, lambda: self._reading.discard((topic, group)))
            self._reading.add((topic, group))
        return reader

    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]:
        """Returns the stored values of `key` that overlap `[start, end)`, oldest first."""
        return self._table(topic).fetch(key, start, end)

    def last(self, topic: str, key: str) -> bytes | None:
        """Returns the newest stored value of `key`, or None."""
        return self._table(topic).last(key)

    def end(self, topic: str) -> int:
        """Returns the end offset: the offset of the next entry."""
        return self._table(topic).end

    def oldest(self, topic: str) -> int:
        """Returns the offset of the oldest stored entry; the end offset if there is none."""
        return self._table(topic).oldest

    def committed(self, topic: str, group: str) -> tuple[int, bytes]:
        """Returns the committed offset and note of the group; 0 and no note if it never read."""
        return self._table(topic).place(group) or (0, b"")

    def groups(self, topic: str) -> list[str]:
        """Returns the names of the groups that have read the topic and were not forgotten."""
        return sorted(self._table(topic).committed)

    def forget(self, topic: str, group: str) -> None:
        """Deletes a group that does not return, so that a `hold` topic keeps nothing for it."""
        self._table(topic).forget(group)

    def trim(self) -> None:
        """Applies the retention of every topic now.

        Appending applies it too, but a topic may receive no entries for long.
        """
        for table in list(self._tables.values()):
            table.trim()

    def size(self) -> int:
        """Returns the bytes on disk, WAL files included."""
        return sum(path.stat().st_size for path in self._folder.iterdir() if path.is_file())

    def close(self) -> None:
        """Wakes all readers and closes all files; records that were not flushed are lost."""
        with self._opening:
            while self._tables:
                self._tables.popitem()[1].close()
            os.close(self._lock)

    def _table(self, topic: str) -> Table:
        if topic in self._tables:
            return self._tables[topic]
        with self._opening:
            if topic not in self._tables:
                if not _TOPIC.fullmatch(topic):
                    msg = f"{topic!r} is no name of a topic"
                    raise ValueError(msg)
                retention = self._retention.get(topic, self._default)
                self._tables[topic] = Table(self._folder / f"{topic}.db", retention, self._clock)
            return self._tables[topic]


class LogReader:
    """Reads one topic for one group; `lost` counts entries that retention deleted before the
    read."""

    def __init__(self, table: Table, group: str, release: Callable[[], object]) -> None:
        self.lost = 0
        self._table = table
        self._group = group
        self._release = release
        self._link = table.connect()
        self._next, self._note = table.join(group)
        self._told = False

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        """Returns `Assigned` on the first call, and at most `limit` entries; a flush ends the
        wait."""
        events: list[Assigned | Entry | Revoked] = []
        if not self._told:
            self._told = True
            events.append(Assigned(0, self._next, self._note))
        events += self._entries(limit)
        if not events and wait > 0:
            self._table.wait_beyond(self._next, wait)
            events += self._entries(limit)
        return events

    def _entries(self, limit: int) -> list[Entry]:
        lost, rows = self._table.read(self._link, self._next, limit)
        self.lost += lost
        self._next += lost + len(rows)
        return [Entry(0, *row) for row in rows]

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        """Stores in one transaction where a restart of this group continues, and its note."""
        _check_partition(partition)
        self._table.commit(self._group, offset, note)

    def behind(self, partition: int) -> int:
        """Returns the number of entries not polled yet; at least 1 before the first poll."""
        _check_partition(partition)
        waiting = self._table.end - max(self._next, self._table.oldest)
        return waiting if self._told else max(1, waiting)

    def close(self) -> None:
        """Releases the group; entries that were not committed are read again."""
        self._table.release(self._link)
        self._release()


def _check_partition(partition: int) -> None:
    if partition != 0:
        msg = f"the local log has one partition, not {partition}"
        raise ValueError(msg)


def between(folder: Path, topic: str, start: int, end: int) -> Iterator[Entry]:
    """Yields the entries that start in `[start, end)` (event time, ns UTC), and their neighbours.

    The neighbours are the adjacent entries without a start: rosters before, and promises after,
    which close the open windows. Works while a daemon uses the log. Raises OutsideError when there
    is no such log.
    """
    with _looking(folder, topic) as link:
        first, last = link.execute(_SPAN, (start, end)).fetchone()
        if first is not None:
            (first,) = link.execute(_BEFORE, (first,)).fetchone()
        if last is not None:
            (last,) = link.execute(_BEYOND, (last, end)).fetchone()
        while first is not None and last is not None and first <= last:
            rows = link.execute(_ROWS, (first, last, _AT_ONCE)).fetchall()
            yield from (Entry(0, *row) for row in rows)
            first = rows[-1][0] + 1 if rows else None


def appended(folder: Path, topic: str, start: int, end: int) -> Iterator[tuple[int, Entry]]:
    """Yields (append time, entry) for `[start, end)` ns UTC; raises as `between` does."""
    if folder.is_dir() and not (folder / f"{topic}.db").exists():
        return  # nothing was ever published to this topic
    with _looking(folder, topic) as link:
        first = 0
        while rows := link.execute(_APPENDED, (first, start, end, _AT_ONCE)).fetchall():
            yield from ((when, Entry(0, *row)) for when, *row in rows)
            first = rows[-1][1] + 1


@contextmanager
def _looking(folder: Path, topic: str) -> Iterator[Connection]:
    path = folder / f"{topic}.db"
    try:
        with closing(connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as link:
            yield link
    except SqliteError as error:
        msg = f"{path} cannot be read ({error}); is this the state folder of a daemon?"
        raise OutsideError(msg) from error
