"""The spool: stores captured records on the capture's own disk until the brokers have them.

It is one SQLite file with one order over all topics. Capture writes only here, so that it needs no
broker; `workers/bus/spool_forwarder.py` takes records from the front and publishes them.

At the cap, and when the disk is full before, records are evicted in this order: the oldest frames,
then the oldest audio. A `Progress(alive=False)` replaces them, one a second of event time, so that
the site's windows still close, with the source lost. The next frame takes over the `look` of an
evicted one. Reports, modes, Progress and Roster are never evicted.
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec

from pipeline import codec, topics, trace
from pipeline.bus.disk_space import DiskSpace
from pipeline.bus.log_table import URGENT
from pipeline.bus.sqlite_file import FileKind, SqliteFile, lock
from pipeline.errors import DiskFull
from pipeline.sources import first_free
from pipeline.types import SECOND, AudioChunk, FrameChunk, Mode, Progress, Record, Report
from workers.media.motion import LOOKS

SMALLEST_CAP = 16 << 20  # bytes; the smallest cap
MARK_EVERY = SECOND  # ns of event time between two Progress records in place of evicted chunks
FRAME, SOUND, KEPT = 0, 1, 2  # evicted first, evicted next, never evicted

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
_KIND = FileKind(
    name="spool",
    application=0x46757370,  # "Fusp"
    schema=_SCHEMA,
    page_size=_PAGE,
    secure_delete="OFF",
    cap="bus.spool",
    anew="lose what waits in it for the brokers, and start anew",
    refusal="{path} is no spool of this Fusewatch: move it away, or name another --state",
)

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

    `cap` is bytes on disk; `dropped` counts the evicted frames and audio chunks. `spare` bytes of
    the disk stay free, and some more are held in a file (`DiskSpace`). Raises ValueError for a cap
    below `SMALLEST_CAP`, OutsideError when another process has the file or it is not a spool.
    """

    def __init__(
        self,
        path: Path,
        *,
        cap: int,
        dropped: Dropped = lambda site, source, n: None,
        spare: int = 0,
    ) -> None:
        if cap < SMALLEST_CAP:
            msg = f"a spool of {cap} bytes is too small: {SMALLEST_CAP} at least"
            raise ValueError(msg)
        self.path = path
        self._space = DiskSpace(path.parent, spare)
        self._wal = self._space.most_wal(_WAL)
        self._budget = cap - _WAL - (64 << 10)  # 32 KiB of -shm, and slack
        self._dropped = dropped
        self._changed = threading.Condition()
        self._taken = 0  # the highest id that a broker may have; up to it nothing is evicted
        self._done = 0  # the highest id that the brokers have; a full disk may still hold it
        self._marks: dict[tuple[str, str], int] = {}  # (topic, key) -> `upto` of its last mark, ns
        self._owed: dict[str, str] = {}  # key -> the strongest look of the frames evicted last
        self._held = lock(path.with_suffix(".lock"), path)
        try:
            self._file = self._opened()
        except BaseException:
            os.close(self._held)
            raise
        try:
            with self._file.outside():
                self._load()
        except BaseException:
            self.close()
            raise

    def _opened(self) -> SqliteFile:
        try:
            return SqliteFile(self.path, _KIND)
        except DiskFull:
            if not self._space.release():
                raise
            return SqliteFile(self.path, _KIND)

    def _load(self) -> None:
        sql = "SELECT count(*), total(size), max(id) FROM waiting"
        row = self._file.execute(sql).fetchone()
        self._waiting, self._bytes, self._last = int(row[0]), int(row[1]), int(row[2] or 0)

    # -- capture's side

    def put(self, topic: str, records: Sequence[Record]) -> None:
        """Stores records; on return they survive a crash.

        With a Report or a Mode they survive a power cut too (fsync). On a full disk older frames
        and audio give way. Raises DiskFull where none are left, or with a Report or a Mode FileBusy
        where another program has locked the file; then stores none of them.
        """
        while True:
            try:
                self._put(topic, records)
                self._space.hold()
                return
            except DiskFull:
                if not self._give_way():
                    raise

    def _put(self, topic: str, records: Sequence[Record]) -> None:
        rows = [_row(topic, record) for record in records]
        newest = {topics.key_of(topic, record): _place(record) for record in records}
        durable = any(isinstance(record, Report | Mode) for record in records)
        gone = Counter[str]()
        with self._changed:
            first = self._last + 1
            longest = URGENT if durable else math.inf
            with self._file.transaction(durable=durable, longest=longest) as run:
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
        self._count(gone)

    def _give_way(self) -> bool:
        """Evicts some of what may be evicted, for a full disk; returns whether it made room."""
        released, gone = self._space.release(), Counter[str]()
        with self._changed:
            self._file.checkpoint()  # its space is needed for what is deleted and moved
            try:
                with self._file.transaction():
                    left, freed = self._make_room(_STEP << 14, gone)
            except DiskFull:
                return released
            self._waiting -= left
            self._bytes -= freed
            self._file.checkpoint()
            shrunk = self._file.shrink(0, _STEP * 2)
            self._file.checkpoint()
        self._count(gone)
        return released or shrunk or bool(gone)

    def _count(self, gone: Mapping[str, int]) -> None:
        for key, n in gone.items():
            site, _, source = key.partition("/")
            self._dropped(site, source, n)

    def last(self, topic: str, key: str) -> bytes | None:
        """The position of (topic, key): an encoded Progress up to the first ns after its newest
        record. It stays known after the brokers have that record."""
        sql = "SELECT value FROM newest WHERE topic = ? AND key = ?"
        with self._changed, self._file.outside():
            row = self._file.execute(sql, (topic, key)).fetchone()
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
        with self._changed, self._file.outside():
            cursor = self._file.execute(sql, (self._done, limit))
            for number, kind, topic, key, parent, value in cursor:
                taken.append(
                    Waiting(id=number, kind=kind, topic=topic, key=key, trace=parent, value=value)
                )
                size -= len(value)
                if size <= 0:
                    break
            cursor.close()
            taken = [self._with_owed(each) for each in taken]
            if taken:
                self._taken = max(self._taken, taken[-1].id)
        return taken

    def _with_owed(self, frame: Waiting) -> Waiting:
        """The record; a frame that follows evicted ones is stored with the look that they had."""
        if frame.kind != FRAME or frame.id <= self._taken or frame.key not in self._owed:
            return frame
        old = cast(FrameChunk, codec.decode(frame.value))
        look = min(self._owed[frame.key], old.look, key=LOOKS.index)
        value = codec.encode(msgspec.structs.replace(old, look=look))
        try:
            with self._file.transaction() as run:
                sql = "UPDATE waiting SET size = ?, value = ? WHERE id = ?"
                run.execute(sql, (len(value), value, frame.id))
        except DiskFull:
            return frame  # a later frame takes it over
        del self._owed[frame.key]
        self._bytes += len(value) - len(frame.value)
        return msgspec.structs.replace(frame, value=value)

    def done(self, taken: Sequence[Waiting]) -> None:
        """Deletes records that the brokers have; they must be the oldest.

        If the disk is too full to delete them, they are deleted later and not taken again until
        then.
        """
        with self._changed:
            self._done = taken[-1].id
            self._waiting -= len(taken)
            self._bytes -= sum(len(each.value) for each in taken)
            with suppress(DiskFull), self._file.transaction() as run:
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
        """The share of the cap in use; near 1, records are evicted."""
        with self._changed, self._file.outside():
            return self._file.live() / max(self._most(), 1)

    def chunks(self) -> dict[str, int]:
        """The number of waiting frames and audio chunks by key, for the balance of counts."""
        sql = "SELECT key, count(*) FROM waiting WHERE id > ? AND kind < ? GROUP BY key"
        with self._changed, self._file.outside():
            return dict(self._file.execute(sql, (self._done, KEPT)).fetchall())

    def close(self) -> None:
        """Closes the file and releases its lock."""
        with self._changed:
            self._file.close()
        os.close(self._held)

    # -- inside

    def _make_room(self, incoming: int, gone: Counter[str]) -> tuple[int, int]:
        """Evicts the oldest records, inside a transaction, until `incoming` bytes fit the cap.

        Returns the number of rows and bytes that are gone; `gone` counts evictions by key.
        """
        rows = size = 0
        most = self._most()
        excess = self._file.live() + incoming - most
        for kind in (FRAME, SOUND):
            while excess > 0 and (oldest := self._oldest(kind, excess)):
                for number, length, upto, topic, key in oldest:
                    if kind == FRAME:
                        self._owe(number, key)
                    mark = self._mark(topic, key, upto)
                    if mark:
                        sql = "UPDATE waiting SET kind = ?, size = ?, value = ? WHERE id = ?"
                        self._file.execute(sql, (KEPT, len(mark), mark, number))
                    else:
                        self._file.execute("DELETE FROM waiting WHERE id = ?", (number,))
                    gone[key] += 1
                    rows += not mark
                    size += length - len(mark)
                    excess -= length - len(mark)
                if excess <= 0:
                    excess = self._file.live() + incoming - most
        return rows, size

    def _owe(self, number: int, key: str) -> None:
        """Remembers the look of a frame that is to be evicted."""
        sql = "SELECT value FROM waiting WHERE id = ?"
        frame = cast(FrameChunk, codec.decode(self._file.execute(sql, (number,)).fetchone()[0]))
        if frame.look:
            self._owed[key] = min(frame.look, self._owed.get(key, ""), key=LOOKS.index)

    def _most(self) -> int:
        """Bytes of pages that the spool may have now: less than its cap on a disk that is full."""
        if not self._space.spare:
            return self._budget
        ours = self._file.size() + self._file.wal_size()
        return min(self._budget, ours + self._space.free() - self._space.spare - self._wal)

    def _oldest(self, kind: int, wanted: int) -> list[tuple[int, int, int, str, str]]:
        """The oldest records of a kind, about `wanted` bytes; none that a broker may have."""
        sql = (
            "SELECT id, size, upto, topic, key FROM waiting WHERE kind = ? AND id > ? "
            "ORDER BY id LIMIT ?"
        )
        found: list[tuple[int, int, int, str, str]] = []
        for row in self._file.execute(sql, (kind, self._taken, _STEP)):
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

    def _shrink(self) -> None:
        """Returns free pages to the disk, some at a time, while too many are free."""
        self._file.shrink(max(_WAL, self._file.live() // 2), _STEP * 16)

    def _bound_wal(self) -> None:
        """Checkpoints the WAL into the file when it has grown, unless the disk has no room."""
        with suppress(DiskFull):
            self._file.bound_wal(self._wal // 2)


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
