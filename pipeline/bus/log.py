"""The local log: the bus of an edge box. One SQLite file per topic, many threads, one process.

It survives `kill -9` at any moment; a `durable` topic also survives a power cut. Every topic has
one partition. https://www.sqlite.org/wal.html describes the guarantees of WAL.

When the disk or the log is full, the topics that give way lose their oldest entries: first those
that were read, then files that others give up (`give`), then entries that were not read. Only then
does a writer wait, or is refused.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event, Lock, local
from typing import Any, TypeVar

from pipeline.bus.disk_space import DiskSpace
from pipeline.bus.log_retention import Retention
from pipeline.bus.log_table import Table
from pipeline.bus.private import private_folder
from pipeline.bus.sqlite_file import lock
from pipeline.bus.waits import Waits
from pipeline.errors import DiskFull, OutsideError
from pipeline.ports import Assigned, Entry, Revoked

__all__ = ["LocalLog", "LogReader", "Retention"]

log = logging.getLogger("fusewatch.log")
T = TypeVar("T")
Missed = Callable[[str, Mapping[str, int]], object]  # group, chunks by key

_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STEP = 1 << 20  # bytes that give way at a time


class _Unflushed(local):
    """The records that one thread published and did not flush: topic -> (key, value, trace)."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[str, bytes, str]]] = {}
        self.sizes: dict[str, int] = {}


class LocalLog:
    """The topics stored in `folder`.

    `clock` returns ns UTC; it is called only when entries are appended. `spare` bytes of the disk
    stay free, and some more are held in a file; topics that give way make room for that. `give`
    frees about so many bytes of other files, and returns how many. Waits for the disk or for a
    lock of another program end when `stop` is set. `missed` is told of chunks that were deleted
    before a group had read them. Raises OutsideError when another process uses the folder, or when
    a file in it is not a Fusewatch log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], int],
        retention: Mapping[str, Retention] | None = None,
        default: Retention | None = None,
        spare: int = 0,
        give: Callable[[int], int] = lambda wanted: 0,
        stop: Event | None = None,
        missed: Missed = lambda group, chunks: None,
    ) -> None:
        self._folder = folder
        self._missed = missed
        self._give = give
        self._waits = Waits(stop)
        self._evicting = Lock()
        self._space = DiskSpace(folder, spare)
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
            self._open_all()
            self.keep_free()
        except BaseException:
            self.close()
            raise

    def _open_all(self) -> None:
        """Opens what is there; topics that give way come first, as they can make room."""
        found = [path.stem for path in self._folder.glob("*.db")]
        for topic in sorted(found, key=lambda topic: (self._rank(topic), topic)):
            try:
                self._roomy(lambda topic=topic: self._table(topic))  # type: ignore[misc]
            except DiskFull as full:
                if self._rank(topic) == math.inf:
                    raise
                log.warning("%s: its records are deleted, so that the others can be read", full)
                for path in self._folder.glob(f"{topic}.db*"):
                    path.unlink()

    def _rank(self, topic: str) -> float:
        return self._retention.get(topic, self._default).gives_way or math.inf

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        """Buffers in this thread until `flush`; a large buffer is flushed early."""
        table = self._ready(topic)
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
        rows, table = self._buffer.rows[topic], self._ready(topic)
        self._roomy(lambda: table.append(rows), wait=not self._is_told(topic))
        del self._buffer.rows[topic], self._buffer.sizes[topic]  # kept on an error

    def _is_told(self, topic: str) -> bool:
        """Whether who appends to the topic is told of a full disk, and does not wait."""
        of = self._retention.get(topic, self._default)
        return of.urgent or of.gives_way > 0

    def _ready(self, topic: str) -> Table:
        """The table of a topic; a new one may have to wait for the disk."""
        known = self._tables.get(topic)
        return known or self._roomy(lambda: self._table(topic), wait=not self._is_told(topic))

    def discard(self) -> None:
        """Drops what this thread published and could not flush (DiskFull)."""
        self._buffer.rows.clear()
        self._buffer.sizes.clear()

    def reader(self, topic: str, group: str) -> LogReader:
        """Returns the only reader of `group`; it continues at the group's committed offset.

        Raises RuntimeError while another reader of the group is open.
        """
        table = self._ready(topic)
        with self._opening:
            if (topic, group) in self._reading:
                msg = f"group {group} reads {topic} already: close its reader first"
                raise RuntimeError(msg)
            release = partial(self._reading.discard, (topic, group))
            roomy = partial(self._roomy, wait=True)
            reader = LogReader(table, group, release, roomy, self._missed)
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
        """Returns the committed offset and note of the group; 0 and no note if it never read.

        A commit counts as soon as it is made, also while another thread is about to store it.
        """
        return self._table(topic).place(group) or (0, b"")

    def chunks(self, topic: str, offset: int) -> dict[str, int]:
        """Returns the number of stored frames or audio chunks by key, from `offset` on."""
        return self._table(topic).chunks(offset)

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

    def resize(self, retention: Mapping[str, Retention]) -> None:
        """Changes the limits of topics; the next append or `trim` applies them."""
        self._retention.update(retention)
        for topic, table in list(self._tables.items()):
            if topic in retention:
                table.resize(retention[topic])

    def read_below(self, topic: str) -> int:
        """The offset below which every group of the topic has committed; the end without one."""
        table = self._table(topic)
        return min(list(table.committed.values()), default=table.end)

    def room(self) -> float:
        """Bytes that the log may still grow by, within the disk and the sum of its retentions."""
        cap = sum(each.max_bytes for each in self._retention.values()) or math.inf
        room = cap - sum(table.size() for table in list(self._tables.values()))
        if self._space.spare:
            room = min(room, self._space.free() - self._space.spare)
        return room

    def keep_free(self) -> bool:
        """Makes room until the spare bytes of the disk are free and held; returns whether so."""
        if not self._space.spare:
            return True
        while (missing := self._space.missing()) > 0:
            if not self.make_room(missing):
                return False
        self._space.hold()
        return True

    def make_room(self, wanted: int = _STEP) -> bool:
        """Frees about `wanted` bytes, 1 MiB at most, of what gives way; returns whether it did."""
        with self._evicting:
            wanted = min(wanted, _STEP)
            released = self._space.release()
            try:
                return (
                    self._evict(wanted, unread=False)
                    or self._give(wanted) > 0
                    or (self._evict(wanted, unread=True) or released)
                )
            except DiskFull:  # another program was faster
                return released

    def _evict(self, wanted: int, *, unread: bool) -> bool:
        ranked = sorted((self._rank(topic), topic) for topic in list(self._tables))
        tables = [self._tables[topic] for rank, topic in ranked if rank < math.inf]
        return any(table.evict(wanted, unread=unread) for table in tables)

    def _roomy(self, work: Callable[[], T], *, wait: bool = False) -> T:
        """The result of `work`, for which records give way; with `wait` it waits for the disk."""

        def once() -> T:
            while True:
                try:
                    return work()
                except DiskFull:
                    if not self.make_room():
                        raise

        what = f"the disk of {self._folder} is full"
        return self._waits.retried(once, DiskFull, what) if wait else once()

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
                path = self._folder / f"{topic}.db"
                self._tables[topic] = Table(
                    path, retention, self._clock, self.room, self._space.most_wal, self._waits
                )
            return self._tables[topic]


class LogReader:
    """Reads one topic for one group; `lost` counts entries that retention deleted before the
    read."""

    def __init__(
        self,
        table: Table,
        group: str,
        release: Callable[[], object],
        roomy: Callable[[Callable[[], Any]], Any],
        missed: Missed,
    ) -> None:
        self.lost = 0
        self._missed = missed
        self._roomy = roomy
        self._table = table
        self._group = group
        self._release = release
        self._link = table.connect()
        place: tuple[int, bytes] = roomy(lambda: table.join(group))
        self._next, self._note = place
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
        if lost:
            self.lost += lost
            self._missed(self._group, self._table.losses.between(self._next, self._next + lost))
        self._next += lost + len(rows)
        return [Entry(0, *row) for row in rows]

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        """Stores in one transaction where a restart of this group continues, and its note.

        Waits while the disk is full or the file is locked. While another thread writes, that one
        stores it, and this one does not wait, unless the topic is `durable`.
        """
        _check_partition(partition)
        self._roomy(lambda: self._table.commit(self._group, offset, note))

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
