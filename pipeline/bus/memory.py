"""A bus in memory, single-threaded, that carries bytes only; for tests and for fast replay."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence

import msgspec

from pipeline import codec
from pipeline.ports import Assigned, Entry, Revoked


class _Partition:
    """Stores the entries `[base, end)`; those below `base` were trimmed."""

    def __init__(self) -> None:
        self.base = 0
        self.entries: deque[Entry] = deque()
        self.bytes = 0

    @property
    def end(self) -> int:
        return self.base + len(self.entries)

    def append(self, partition: int, key: str, value: bytes, trace: str) -> None:
        self.entries.append(Entry(partition, self.end, key, value, trace))
        self.bytes += len(value)

    def trim(self, below: int, keep_bytes: int) -> None:
        while self.base < below and self.bytes > keep_bytes:
            self.bytes -= len(self.entries.popleft().value)
            self.base += 1


class _Commit(msgspec.Struct, frozen=True):
    offset: int
    note: bytes


class MemoryBus:
    """Topics with `partitions` partitions each; CRC-32 of a key picks its partition.
    Single-threaded.

    Entries that every group of a topic has committed past are trimmed, except the newest
    `keep_bytes` of a partition, which `fetch` may need. With `keep`, and for a topic that no group
    reads, all entries are kept.
    """

    def __init__(
        self, partitions: int = 1, *, keep: bool = False, keep_bytes: int = 64 << 20
    ) -> None:
        self._count = partitions
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._topics: dict[str, list[_Partition]] = {}
        self._commits: dict[tuple[str, str], dict[int, _Commit]] = {}
        self._reading: set[tuple[str, str]] = set()
        self._pending: list[tuple[str, str, bytes, str]] = []

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        """Buffers a record; the next `flush` appends it."""
        self._pending.append((topic, key, bytes(value), trace))

    def flush(self) -> None:
        """Makes all published records visible to the readers."""
        for topic, key, value, trace in self._pending:
            number = zlib.crc32(key.encode()) % self._count
            self.partitions(topic)[number].append(number, key, value, trace)
        self._pending.clear()

    def reader(self, topic: str, group: str) -> MemoryReader:
        """Returns the only reader of `group`; it continues at the group's committed offset.

        Raises RuntimeError while another reader of the group is open.
        """
        if (topic, group) in self._reading:
            msg = f"group {group} reads {topic} already: close its reader first"
            raise RuntimeError(msg)
        self._reading.add((topic, group))
        self._commits.setdefault((topic, group), {})
        return MemoryReader(self, topic, group)

    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]:
        """Returns the stored values of `key` that overlap `[start, end)`, oldest first."""
        number = zlib.crc32(key.encode()) % self._count
        return [
            entry.value
            for entry in self.partitions(topic)[number].entries
            if entry.key == key and codec.overlaps(entry.value, start, end)
        ]

    def values(self, topic: str) -> list[bytes]:
        """Returns all stored values of a topic, partition by partition."""
        return [entry.value for part in self.partitions(topic) for entry in part.entries]

    def close(self) -> None:
        """Drops the records that were not flushed."""
        self._pending.clear()

    def partitions(self, topic: str) -> list[_Partition]:
        """Returns the partitions of a topic; creates them on the first call."""
        if topic not in self._topics:
            self._topics[topic] = [_Partition() for _ in range(self._count)]
        return self._topics[topic]

    def committed(self, topic: str, group: str, partition: int) -> _Commit:
        """Returns the commit of `group`; before its first one, the oldest entry and an empty
        note."""
        commit = self._commits[topic, group].get(partition)
        return commit or _Commit(self.partitions(topic)[partition].base, b"")

    def commit(self, topic: str, group: str, partition: int, offset: int, note: bytes) -> None:
        """Stores the offset at which `group` continues, and trims what no group needs any
        longer."""
        self._commits[topic, group][partition] = _Commit(offset, note)
        if self._keep:
            return
        below = min(
            commits[partition].offset if partition in commits else 0
            for (name, _), commits in self._commits.items()
            if name == topic
        )
        self.partitions(topic)[partition].trim(below, self._keep_bytes)

    def release(self, topic: str, group: str) -> None:
        """Allows another reader of `group`."""
        self._reading.discard((topic, group))


class MemoryReader:
    """Reads all partitions, one entry of each in turn; never waits, as there is only one thread.

    `lost` counts entries that were trimmed before it came: only a group that commits an older
    offset than before can lose any.
    """

    def __init__(self, bus: MemoryBus, topic: str, group: str) -> None:
        self.lost = 0
        self._bus = bus
        self._topic = topic
        self._group = group
        self._next: dict[int, int] = {}
        self._turn = 0
        self._closed = False

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        """Returns `Assigned` for each partition on the first call, and at most `limit` entries."""
        self._check_open()
        events: list[Assigned | Entry | Revoked] = []
        parts = self._bus.partitions(self._topic)
        if not self._next:
            for number in range(len(parts)):
                commit = self._bus.committed(self._topic, self._group, number)
                self._next[number] = commit.offset
                events.append(Assigned(number, commit.offset, commit.note))
        idle = 0
        while limit > 0 and idle < len(parts):
            number = self._turn
            self._turn = (self._turn + 1) % len(parts)
            part = parts[number]
            at = max(self._next[number], part.base)
            if at >= part.end:
                idle += 1
                continue
            events.append(part.entries[at - part.base])
            self.lost += at - self._next[number]
            self._next[number] = at + 1
            limit -= 1
            idle = 0
        return events

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        """Stores the offset at which a restart of this group continues, and its note."""
        self._check_open()
        self._bus.commit(self._topic, self._group, partition, offset, note)

    def behind(self, partition: int) -> int:
        """Returns the number of entries not polled yet; at least 1 before the first poll."""
        part = self._bus.partitions(self._topic)[partition]
        if partition not in self._next:
            return max(1, part.end - part.base)
        return part.end - max(self._next[partition], part.base)

    def close(self) -> None:
        """Releases the group; entries that were not committed are read again."""
        if not self._closed:
            self._closed = True
            self._bus.release(self._topic, self._group)

    def _check_open(self) -> None:
        if self._closed:
            msg = f"the reader of {self._topic} for {self._group} is closed"
            raise RuntimeError(msg)
