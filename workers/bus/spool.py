"""The spool: what capture keeps on its own disk until the brokers have it.

One SQLite file, one order over all topics. Capture only ever writes here, so that it needs no
broker to go on; `workers/bus/spool_forwarder.py` takes from the front and publishes.

At the cap, records are evicted in this order: the oldest frames, then the oldest sound. A
`Progress(alive=False)` stays in their place, one for each second of event time. So the windows of
the site go on, and say that they were judged without it. Reports, Progress and Roster are never
evicted.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import msgspec

from pipeline import codec, topics, trace
from pipeline.bus.sqlite_errors import lock, outside
from pipeline.errors import DiskFull, OutsideError
from pipeline.sources import first_free
from pipeline.types import SECOND, AudioChunk, FrameChunk, Progress, Record, Report

LEAST = 16 << 20  # bytes; the smallest cap
MARK_EVERY = SECOND  # ns of event time between two Progress records in place of evicted chunks
FRAME, SOUND, KEPT = 0, 1, 2  # evicted first, evicted next, never evicted

_APPLICATION, _VERSION = 0x46757370, 1  # "Fusp", in the file's header
_PAGE = 8192
_WAL = 8 << 20
_STEP = 64  # rows or pages at a time
_SCHEMA = """
CREATE TABLE waiting (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, size INTEGER NOT NULL,
    upto INTEGER NOT NULL, topic TEXT NOT NULL, key TEXT NOT NULL, trace TEXT NOT NULL,
    value BLOB NOT NULL);
CREATE INDEX gives_way ON waiting (kind, id) WHERE kind < 2;
CREATE TABLE newest (topic TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (topic, key)) WITHOUT ROWID;
"""

Dropped = Callable[[str, str, int], object]  # site, source, how many


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A record that waits for the brokers; `id` increases in the order of `put`."""

    id: int
    kind: int
    topic: str
    key: str
    trace: str
    value: bytes


class Spool:
    """The records that wait for the brokers, in `path`; thread safe, for one process at a time.

    `cap` is bytes on disk; `dropped` counts the evicted frames and audio chunks. Raises ValueError
    for a cap below `LEAST`, OutsideError when another process has the file or it is not a spool.
    """

    def __init__(
        self, path: Path, *, cap: int, dropped: Dropped = lambda site, source, n: None
    ) -> None:
        if cap < LEAST:
            msg = f"a spool of {cap} bytes is too small: {LEAST} at least"
            raise ValueError(msg)
        self.path = path
        self._budget = cap - _WAL - (64 << 10)  # 32 KiB of -shm, and slack
        self._dropped = dropped
        self._changed = threading.Condition()
        self._taken = 0  # the highest id that a broker may have; up to it nothing is evicted
        self._done = 0  # the highest id that the brokers have; a full disk may still hold it
        self._marks: dict[tuple[str, str], int] = {}  # (topic, key) -> `upto` of its last mark, ns
        self._held = lock(path.with_suffix(".lock"), path)
        try:
            self._sqlite = self._connected()
        except BaseException:
            os.close(self._held)
            raise
        try:
            with self._outside():
                self._open()
        except BaseException:
            self.close()
            raise

    def _connected(self) -> sqlite3.Connection:
        with self._outside():
            return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)

    def _open(self) -> None:
        run = self._sqlite.execute
        tables = run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        found = self._pragma("application_id"), self._pragma("user_version")
        if tables and found != (_APPLICATION, _VERSION):
            msg = (
                f"{self.path} is no spool of this Fusewatch: move it away, or name another --state"
            )
            raise OutsideError(msg)
        run(f"PRAGMA page_size = {_PAGE}")
        run("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or never
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA wal_autocheckpoint = 0")  # `_bound_wal` does it, by bytes
        run("PRAGMA secure_delete = OFF")  # Debian's default reads and rewrites what it frees
        if not tables:
            head = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION};"
            self._sqlite.executescript(f"BEGIN; {_SCHEMA} {head} COMMIT;")
        row = run("SELECT count(*), total(size), max(id) FROM waiting").fetchone()
        self._waiting, self._bytes, self._last = int(row[0]), int(row[1]), int(row[2] or 0)

    # -- capture's side

    def put(self, topic: str, records: Sequence[Record]) -> None:
        """Stores records; on return they survive a crash, and with a Report a power cut (fsync).

        Raises DiskFull, and then stores none of them.
        """
        rows = [_row(topic, record) for record in records]
        newest = {topics.key_of(topic, record): _place(record) for record in records}
        durable = any(isinstance(record, Report) for record in records)
        gone = Counter[str]()
        with self._changed:
            first = self._last + 1
            with self._transaction(durable=durable) as run:
                left, freed = self._make_room(sum(_cost(len(row[-1])) for row in rows), gone)
                run.executemany(
                    "INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [(number, *row) for number, row in enumerate(rows, first)],
                )
                run.executemany(
                    "INSERT OR REPLACE INTO newest VALUES (?, ?, ?)",
                    [(topic, key, value) for key, value in newest.items()],
                )
            self._last += len(rows)
            self._waiting += len(rows) - left
            self._bytes += sum(len(row[-1]) for row in rows) - freed
            self._changed.notify_all()
            self._bound_wal()
        for key, n in gone.items():
            site, _, source = key.partition("/")
            self._dropped(site, source, n)

    def last(self, topic: str, key: str) -> bytes | None:
        """The position of (topic, key): an encoded Progress up to the first ns after its newest
        record. It stays known after the brokers have that record."""
        sql = "SELECT value FROM newest WHERE topic = ? AND key = ?"
        with self._changed, self._outside():
            row = self._sqlite.execute(sql, (topic, key)).fetchone()
        return bytes(row[0]) if row else None

    # -- the brokers' side

    def take(self, limit: int, size: int) -> list[Waiting]:
        """Returns the oldest waiting records, in order: at most `limit`, and about `size` bytes.

        They stay until `done` and are not evicted, because a broker may have them from now on.
        """
        sql = (
            "SELECT id, kind, topic, key, trace, value FROM waiting WHERE id > ? ORDER BY id "
            "LIMIT ?"
        )
        taken: list[Waiting] = []
        with self._changed, self._outside():
            cursor = self._sqlite.execute(sql, (self._done, limit))
            for number, kind, topic, key, parent, value in cursor:
                taken.append(
                    Waiting(id=number, kind=kind, topic=topic, key=key, trace=parent, value=value)
                )
                size -= len(value)
                if size <= 0:
                    break
            cursor.close()
            if taken:
                self._taken = max(self._taken, taken[-1].id)
        return taken

    def done(self, taken: Sequence[Waiting]) -> None:
        """Deletes records that the brokers have; they must be the oldest.

        If the disk is too full to delete them, they are deleted later and not taken again until
        then.
        """
        with self._changed:
            self._done = taken[-1].id
            self._waiting -= len(taken)
            self._bytes -= sum(len(each.value) for each in taken)
            with suppress(DiskFull), self._transaction() as run:
                run.execute("DELETE FROM waiting WHERE id <= ?", (self._done,))
                self._shrink()
            self._bound_wal()

    def wait(self, seconds: float) -> bool:
        """Waits at most `seconds` for a record; returns whether one waits."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting > 0, seconds)

    # -- status

    @property
    def waiting(self) -> int:
        """The number of records that the brokers do not have yet."""
        return self._waiting

    @property
    def size(self) -> int:
        """The bytes of the waiting records."""
        return self._bytes

    @property
    def share(self) -> float:
        """How much of its room on the disk is taken; near 1 records give way."""
        with self._changed, self._outside():
            return self._live() / self._budget

    def chunks(self) -> dict[str, int]:
        """The number of waiting frames and audio chunks by key, for the balance of counts."""
        sql = "SELECT key, count(*) FROM waiting WHERE id > ? AND kind < ? GROUP BY key"
        with self._changed, self._outside():
            return dict(self._sqlite.execute(sql, (self._done, KEPT)).fetchall())

    def close(self) -> None:
        """Closes the file and releases its lock."""
        with self._changed:
            self._sqlite.close()
        os.close(self._held)

    # -- inside

    def _make_room(self, incoming: int, gone: Counter[str]) -> tuple[int, int]:
        """Evicts the oldest records, inside a transaction, until `incoming` bytes fit the cap.

        Returns the number of rows and bytes that are gone; `gone` counts evictions by key.
        """
        rows = size = 0
        excess = self._live() + incoming - self._budget
        for kind in (FRAME, SOUND):
            while excess > 0 and (oldest := self._oldest(kind, excess)):
                for number, length, upto, topic, key in oldest:
                    mark = self._mark(topic, key, upto)
                    if mark:
                        sql = "UPDATE waiting SET kind = ?, size = ?, value = ? WHERE id = ?"
                        self._sqlite.execute(sql, (KEPT, len(mark), mark, number))
                    else:
                        self._sqlite.execute("DELETE FROM waiting WHERE id = ?", (number,))
                    gone[key] += 1
                    rows += not mark
                    size += length - len(mark)
                    excess -= length - len(mark)
                if excess <= 0:
                    excess = self._live() + incoming - self._budget
        return rows, size

    def _oldest(self, kind: int, wanted: int) -> list[tuple[int, int, int, str, str]]:
        """The oldest records of a kind, about `wanted` bytes; none that a broker may have."""
        sql = (
            "SELECT id, size, upto, topic, key FROM waiting WHERE kind = ? AND id > ? "
            "ORDER BY id LIMIT ?"
        )
        found: list[tuple[int, int, int, str, str]] = []
        for row in self._sqlite.execute(sql, (kind, self._taken, _STEP)):
            found.append(row)
            wanted -= row[1]
            if wanted <= 0:
                break
        return found

    def _mark(self, topic: str, key: str, upto: int) -> bytes:
        """The Progress that replaces an evicted chunk; empty if there was one within MARK_EVERY."""
        if upto - self._marks.get((topic, key), upto - MARK_EVERY) < MARK_EVERY:
            return b""
        self._marks[topic, key] = upto
        site, _, source = key.partition("/")
        reason = "the brokers were away for longer than the spool has room (bus.spool)"
        return codec.encode(
            Progress(site=site, source=source, upto=upto, alive=False, reason=reason)
        )

    def _pragma(self, name: str) -> int:
        return int(self._sqlite.execute(f"PRAGMA {name}").fetchone()[0])

    def _live(self) -> int:
        """Bytes of the file's pages that are in use; the others will be used again."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * _PAGE

    def _shrink(self) -> None:
        """Gives free pages back to the disk, some at a time, while far too many are free."""
        free = self._pragma("freelist_count")
        if free * _PAGE > max(_WAL, self._live() // 2):
            for _ in range(_STEP * 16):  # one a call: Python takes one step of such a PRAGMA
                self._sqlite.execute("PRAGMA incremental_vacuum(1)")

    def _bound_wal(self) -> None:
        """Moves the WAL into the file when it has grown; where that has no room, it stays."""
        wal = Path(f"{self.path}-wal")
        if wal.exists() and wal.stat().st_size > _WAL // 2:
            with suppress(DiskFull), self._outside():
                self._sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._outside():
            if durable:
                self._sqlite.execute("PRAGMA synchronous = FULL")
            try:
                self._sqlite.execute("BEGIN IMMEDIATE")
                yield self._sqlite
                self._sqlite.execute("COMMIT")
            except BaseException:
                if self._sqlite.in_transaction:
                    self._sqlite.execute("ROLLBACK")
                raise
            finally:
                if durable:
                    self._sqlite.execute("PRAGMA synchronous = NORMAL")

    def _outside(self) -> AbstractContextManager[None]:
        what = "lose what waits in it for the brokers, and start anew"
        return outside(self.path, cap="bus.spool", what="spool", anew=what)


def _row(topic: str, record: Record) -> tuple[int, int, int, str, str, str, bytes]:
    value = codec.encode(record)
    key = topics.key_of(topic, record)
    return _kind(record), len(value), first_free(record), topic, key, trace.begin(record), value


def _kind(record: Record) -> int:
    match record:
        case FrameChunk():
            return FRAME
        case AudioChunk():
            return SOUND
        case _:
            return KEPT


def _place(record: Record) -> bytes:
    """The position that stays known after a record is gone: Progress up to the next free ns."""
    return codec.encode(Progress(site=record.site, source=record.source, upto=first_free(record)))


def _cost(size: int) -> int:
    """An upper estimate of the bytes of a row on disk."""
    if size < _PAGE:  # rows of one page: up to half of the page stays empty
        return size + size // 2 + 256
    return size + size // 512 + _PAGE + 512  # overflow pages; the last one is half empty
