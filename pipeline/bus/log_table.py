"""One topic of the local log: a SQLite file in WAL mode, its retention and its readers' offsets.

Offsets have no gaps and are never reused, not even after retention has emptied the file. One
connection writes, under a lock. Every reader has its own connection; WAL lets it read meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Condition, RLock
from typing import Any

from pipeline.bus.log_chunks import UnreadLosses, event_span
from pipeline.bus.log_places import READ, Place, Places
from pipeline.bus.log_retention import Retention, cost
from pipeline.bus.sqlite_file import FileKind, LockedConnection, SqliteFile
from pipeline.bus.waits import Waits
from pipeline.errors import DiskFull, OutsideError
from pipeline.types import ns

Row = tuple[int, str, bytes, str]  # offset, key, value, trace

_SCHEMA = """
CREATE TABLE entries (offset INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL,
    start INTEGER, stop INTEGER, appended INTEGER NOT NULL, value BLOB NOT NULL,
    trace TEXT NOT NULL DEFAULT '');
CREATE INDEX by_key ON entries (key, offset, start, stop);
CREATE TABLE commits (reader TEXT PRIMARY KEY, offset INTEGER NOT NULL, note BLOB NOT NULL);
"""
_KIND = FileKind(
    name="log",
    application=0x46757365,  # "Fuse"
    schema=_SCHEMA,
    upgrades=("ALTER TABLE entries ADD COLUMN trace TEXT NOT NULL DEFAULT '';",),  # 1 had no traces
    secure_delete="FAST",
    cap="storage.cap",
    anew="start that topic anew",
    refusal="{path} is a database, but not a log of this Fusewatch (version {version}, expected "
    "{expected}). Move it away, or choose another state folder",
)
_POLL_BYTES = 32 << 20
_STEP = 256  # rows or pages; limit of one retention step
_STEPS = 16  # steps in one transaction; after a large cut of the cap it takes several
URGENT = 0.0  # s that an `urgent` append waits for a lock, beyond the 2 s of SQLite itself


class Table:
    """The file of one topic; raises OutsideError (DiskFull) for errors of the disk or the file.

    `clock` returns the append time, ns UTC; no other time is used here. `room` returns how many
    bytes the log may still grow by; less than 0 where it is too large. `most_wal` bounds the WAL
    of a topic that gives way.
    """

    def __init__(
        self,
        path: Path,
        retention: Retention,
        clock: Callable[[], int],
        room: Callable[[], float] = lambda: math.inf,
        most_wal: Callable[[int], int] = lambda wanted: wanted,
        waits: Waits | None = None,
    ) -> None:
        self.path = path
        self._clock = clock
        self._room = room
        self._most_wal = most_wal
        self.resize(retention)
        self.arrived = Condition()
        self.closed = False
        self.losses = UnreadLosses()
        self._links: list[LockedConnection] = []
        self._file = SqliteFile(path, _KIND, durable=retention.durable, waits=waits)
        self._writing = RLock()
        self._bytes, self._head = 0, (-1, 0)  # on disk; the oldest entry and when it was appended
        self._places = Places(self._file)
        self.committed = self._places.committed
        try:
            link = self.connect()
            self._query, self._querying = link.connection, link.lock
            self._file.patiently(self._load)
        except BaseException:
            self.close()
            raise

    def resize(self, retention: Retention) -> None:
        """Changes the limits; the next append or `trim` applies them."""
        if retention.max_bytes < 1 << 20:
            msg = f"{self.path.stem}: {retention.max_bytes} bytes are too few for a topic; "
            msg += "1 MiB will do"
            raise ValueError(msg)
        self.retention = retention
        self._wal = min(retention.max_bytes // 4, 8 << 20)
        if retention.gives_way:
            self._wal = self._most_wal(self._wal)
        self.flush_bytes = self._wal * 3 // 8  # the WAL is checkpointed when it is half full
        self._budget = retention.max_bytes - self._wal - (64 << 10)  # 32 KiB of -shm, and a margin

    def connect(self) -> LockedConnection:
        """Opens a connection for one reader."""
        with self._file.outside():
            link = LockedConnection(self.path)
        self._links.append(link)
        return link

    def release(self, link: LockedConnection) -> None:
        """Closes a reader's connection."""
        with link.lock:
            link.connection.close()
        if link in self._links:
            self._links.remove(link)

    def _load(self) -> None:
        sql = "SELECT seq + 1 FROM sqlite_sequence WHERE name = 'entries'"
        row = self._file.execute(sql).fetchone()
        self.end = int(row[0]) if row else 0
        self.oldest = self._find_oldest()
        self._places.load()
        self._measure()

    def _measure(self) -> None:
        self._bytes = self._file.size() + self._file.wal_size()

    def _find_oldest(self) -> int:
        row = self._file.execute("SELECT min(offset) FROM entries").fetchone()
        return self.end if row[0] is None else int(row[0])

    # -- writing

    def append(self, rows: Sequence[tuple[str, bytes, str]]) -> None:
        """Appends all `rows` in one transaction; on return they are on disk and visible to
        readers."""
        now = self._clock()
        spanned = [(key, event_span(value), value, trace) for key, value, trace in rows]
        with self._writer():
            numbered = [
                (self.end + i, key, *span, now, value, trace)
                for i, (key, span, value, trace) in enumerate(spanned)
            ]
            longest = URGENT if self.retention.urgent else math.inf
            with self._file.transaction(longest=longest) as run:
                incoming = sum(map(cost, (value for _, value, _ in rows)))
                changed = self._make_room(incoming, now) or self.oldest == self.end
                run.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", numbered)
                oldest = self._find_oldest() if changed else self.oldest
            with self.arrived:
                self.oldest = oldest
                self.end += len(rows)
                self.arrived.notify_all()
            self._file.bound_wal(self._wal // 2)

    @contextmanager
    def _writer(self) -> Iterator[None]:
        """Makes this thread the only writer; afterwards it stores the commits that did not wait."""
        with self._writing:
            try:
                yield
            finally:  # before another thread writes, whose retention depends on them
                with suppress(OutsideError):  # the next writer stores them
                    self._store_places(URGENT)
                self._measure()
        with suppress(OutsideError):  # those that were noted between that and the release
            self._store_places(URGENT)

    def _store_places(self, longest: float = math.inf) -> None:
        """Stores the commits that are noted, unless another thread writes: it stores them then."""
        while self._places.waiting and self._writing.acquire(blocking=False):
            try:
                self._places.store(longest)
                self._file.bound_wal(self._wal * 9 // 16)  # a little more than appends leave
                self._measure()
            finally:
                self._writing.release()

    def commit(self, group: str, offset: int, note: bytes) -> None:
        """Stores the offset at which `group` continues, and its note.

        While another thread writes, it returns at once, and that thread stores them. That of a
        `durable` topic waits: what was sent out should not be sent again.
        """
        self._places.note(group, offset, note)
        with self._writing if self.retention.durable else nullcontext():
            self._store_places()

    def join(self, group: str) -> Place:
        """Returns the offset at which `group` continues, and its note.

        A new group starts at the oldest entry, and a `hold` topic keeps entries for it from there.
        """
        with self._writer():
            self._store_places()
            place = self._places.read(group)
            if place is None:
                place = (self.oldest, b"")
                self.commit(group, *place)
            return place

    def forget(self, group: str) -> None:
        """Deletes a group that does not return, so that no entries are kept for it."""
        with self._writer():
            self._places.forget(group)

    def trim(self) -> None:
        """Deletes entries that are too old and returns free pages to the disk; to be called
        regularly."""
        trimmed = True
        while trimmed:
            with self._writer():  # released after each step, so that other threads can append
                before = self.oldest
                with self._file.transaction():
                    self._make_room(0, self._clock())
                    oldest = self._find_oldest()
                with self.arrived:
                    self.oldest = oldest
                trimmed = oldest > before or self._shrink(self._most())
                self._file.bound_wal(self._wal // 2 if trimmed else 0)

    def _make_room(self, incoming: int, now: int) -> bool:
        """Deletes the oldest entries until `incoming` bytes fit the budget, in the open
        transaction; returns whether it may have deleted some."""
        deleted, most = self._delete_aged(now - ns(self.retention.max_age)), self._most()
        if not deleted and self._file.allocated() + incoming <= most:
            return False
        for _ in range(_STEPS):
            excess = self._file.live() + incoming - most
            if excess <= 0:
                break
            if not self._delete_oldest(excess, self._limit()):
                self._check_cap(incoming, excess)
                break
        if self._file.allocated() > most:
            self._shrink(most)
        return True

    def _check_cap(self, incoming: int, excess: float) -> None:
        """Raises DiskFull where a `capped` topic would grow beyond its share and the log's room."""
        if incoming and self.retention.capped and excess > self._room():
            msg = (
                f"no room for {self.path.stem}: what waits there to be read takes its share of "
                "`storage.cap`, and nothing gives way any more"
            )
            raise DiskFull(msg)

    def _most(self) -> float:
        """Returns the bytes of pages that the topic may have now."""
        if not self.retention.gives_way:
            return self._budget
        return min(self._budget, self.size() + self._room() - self._wal)

    def evict(self, wanted: int, *, unread: bool) -> bool:
        """Deletes about `wanted` bytes of the oldest entries, and returns them to the disk.

        Entries that a group has not committed stay unless `unread`. Returns whether it could.
        """
        with self._writer():
            self._file.checkpoint()  # its space is needed for what is deleted and moved
            limit = self.end if unread else min(self.committed.values(), default=self.end)
            with self._file.transaction():
                deleted = self._delete_oldest(wanted, limit)
                oldest = self._find_oldest()
            with self.arrived:
                self.oldest = oldest
            self._file.checkpoint()
            shrunk = self._file.shrink(0, max(16, wanted // 4096))
            self._file.checkpoint()
            return deleted or shrunk

    def _delete_aged(self, before: int) -> bool:
        head = "SELECT offset, appended FROM entries"
        if self._head[0] != self.oldest:
            self._head = self._file.execute(f"{head} ORDER BY offset LIMIT 1").fetchone() or (-1, 0)
        if self._head[0] < 0 or self._head[1] >= before:
            return False
        sql, last = f"{head} WHERE offset < ? ORDER BY offset LIMIT ?", None
        for offset, appended in self._file.execute(sql, (self._limit(), _STEP)):
            if appended >= before:
                break
            last = offset
        if last is not None:
            self._delete_to(last)
        return last is not None

    def _delete_oldest(self, wanted: float, limit: int) -> bool:
        sql = "SELECT offset, length(value) FROM entries WHERE offset < ? ORDER BY offset LIMIT ?"
        last, freed = None, 0
        for offset, size in self._file.execute(sql, (limit, _STEP)):
            last, freed = offset, freed + size
            if freed >= wanted:
                break
        if last is None:
            return False
        self._delete_to(last)
        return True

    def _delete_to(self, last: int) -> None:
        self.losses.note(self._file.execute, min(self.committed.values(), default=self.end), last)
        self._file.execute("DELETE FROM entries WHERE offset <= ?", (last,))

    def _limit(self) -> int:
        """Returns the first offset that must not be deleted."""
        if not self.retention.hold:
            return self.end
        return min(self.committed.values(), default=self.end)

    def _shrink(self, most: float) -> bool:
        """Returns some free pages to the disk if too many are free; returns whether it did."""
        fits = self._file.allocated() <= most
        spare = max(1 << 20, self._file.live() // 2) if fits else 0
        return self._file.shrink(spare, _STEP)

    # -- reading

    def read(self, link: LockedConnection, offset: int, limit: int) -> tuple[int, list[Row]]:
        """Returns the number of deleted entries at `offset`, and up to `limit` entries (32 MB)
        after them.

        Returns nothing when the table is closed.
        """
        end = self.end
        if end <= offset:  # most polls find nothing, and need not ask the file
            return 0, []
        columns = "offset, key, value, trace"
        sql = f"SELECT {columns} FROM entries WHERE offset >= ? ORDER BY offset LIMIT ?"  # noqa: S608

        def some() -> list[Row]:
            rows: list[Row] = []
            size = 0
            with closing(link.connection.execute(sql, (offset, limit))) as cursor:
                for row in cursor:
                    rows.append(row)
                    size += len(row[2])
                    if size >= _POLL_BYTES:
                        break
            return rows

        with link.lock:
            if self.closed:
                return 0, []
            rows = self._file.patiently(some)
        return max(0, (rows[0][0] if rows else end) - offset), rows

    def wait_beyond(self, offset: int, wait: float) -> None:
        """Returns when there is an entry at or after `offset`, or after `wait` seconds."""
        with self.arrived:
            self.arrived.wait_for(lambda: self.end > offset or self.closed, wait)

    def fetch(self, key: str, start: int, end: int) -> list[bytes]:
        """Returns the values of `key` whose event span overlaps `[start, end)`, oldest first."""
        sql = "SELECT value FROM entries WHERE key = ? AND start < ? AND stop > ? ORDER BY offset"
        rows = self._queried(sql, (key, end, start))
        return [row[0] for row in rows]

    def chunks(self, offset: int) -> dict[str, int]:
        """Returns the number of frames or audio chunks by key, from `offset` on."""
        sql = (
            "SELECT key, count(*) FROM entries WHERE offset >= ? AND stop IS NOT NULL GROUP BY key"
        )
        return dict(self._queried(sql, (offset,)))

    def place(self, group: str) -> tuple[int, bytes] | None:
        """Returns the committed offset and note of `group`; None if it has never read."""
        if noted := self._places.noted(group):
            return noted
        rows = self._queried(READ, (group,))
        return (int(rows[0][0]), bytes(rows[0][1])) if rows else None

    def last(self, key: str) -> bytes | None:
        """Returns the newest value of `key`, or None."""
        sql = "SELECT value FROM entries WHERE key = ? ORDER BY offset DESC LIMIT 1"
        rows = self._queried(sql, (key,))
        return bytes(rows[0][0]) if rows else None

    def _queried(self, sql: str, values: tuple[object, ...]) -> list[Any]:
        with self._querying:
            return self._file.patiently(lambda: self._query.execute(sql, values).fetchall())

    def size(self) -> int:
        """Returns the bytes of its files on disk after the last write; any thread may call it."""
        return self._bytes

    def close(self) -> None:
        """Wakes all waiting readers and closes every connection."""
        with self.arrived:
            self.closed = True
            self.arrived.notify_all()
        while self._links:
            self.release(self._links.pop())
        with self._writing:
            with suppress(OutsideError):  # then these groups read some entries again
                self._store_places(URGENT)
            self._file.close()
