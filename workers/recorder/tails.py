"""What a recorder reads: one topic of the local log, or of Kafka, in the order of its offsets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from pipeline.bus.log_tail import LogTail
from pipeline.ports import Assigned, Bus, Entry

POLL_ENTRIES = 500
KAFKA_WAIT = 0.02  # s; a client makes progress while it waits
NOTHING = b""  # the note of a recorder: it holds no state


class Gap(msgspec.Struct, frozen=True):
    """Entries that retention deleted before they were read."""

    partition: int
    first: int
    count: int


class Tail(Protocol):
    """One topic that is followed.

    `poll` returns new entries; `gaps` what was deleted before them, once. `behind` is how many
    entries wait to be polled, at least 1 while that is not known. `commit` is called when all that
    was polled is on the disk. After `rewind`, `poll` returns again what was not committed.
    """

    def poll(self) -> Sequence[Entry]: ...
    def behind(self) -> int: ...
    def gaps(self) -> Sequence[Gap]: ...
    def commit(self) -> None: ...
    def rewind(self) -> None: ...
    def close(self) -> None: ...


class LocalTail:
    """A topic of the local log in `folder`, from an offset on."""

    def __init__(self, folder: Path, topic: str, offset: int) -> None:
        self._tail = LogTail(folder, topic, offset)
        self._committed = offset
        self._told = 0

    def poll(self) -> Sequence[Entry]:
        """Returns new entries."""
        return self._tail.poll(POLL_ENTRIES)

    def behind(self) -> int:
        """Returns 0: after a poll that gave nothing, nothing waits."""
        return 0

    def gaps(self) -> Sequence[Gap]:
        """Returns what retention deleted since the last call."""
        new, self._told = self._tail.lost - self._told, self._tail.lost
        return [Gap(0, self._tail.gap, new)] if new else []

    def commit(self) -> None:
        """Notes that all that was polled is on the disk."""
        self._committed = self._tail.next

    def rewind(self) -> None:
        """Goes back to what was not committed."""
        self._tail.next = self._committed

    def close(self) -> None:
        """Closes the connection."""
        self._tail.close()


class KafkaTail:
    """A topic on brokers, for a consumer group: a restart goes on where it has committed.

    Each topic has a group of its own, `GROUP-frames`: one group would deal out its partitions anew
    for each topic that joins.
    """

    def __init__(self, bus: Bus, topic: str, group: str) -> None:
        self._bus, self._topic = bus, topic
        self._group = f"{group}-{topic.removesuffix('.v1')}"
        self._reader = bus.reader(topic, self._group)
        self._next: dict[int, int] = {}  # partition -> the offset that comes next
        self._gaps: list[Gap] = []
        self._lost = 0  # of the reader, so far

    def poll(self) -> Sequence[Entry]:
        """Returns new entries of the partitions that this process owns."""
        found = []
        for event in self._reader.poll(POLL_ENTRIES, KAFKA_WAIT):
            if isinstance(event, Assigned):
                self._next[event.partition] = event.offset
            elif isinstance(event, Entry):
                self._passed(event)
                found.append(event)
            else:
                self._next.pop(event.partition, None)
        return found

    def behind(self) -> int:
        """Returns how many entries wait in the partitions that this process owns."""
        return sum(map(self._reader.behind, self._next)) if self._next else 1

    def gaps(self) -> Sequence[Gap]:
        """Returns what retention deleted since the last call."""
        found, self._gaps = self._gaps, []
        return found

    def commit(self) -> None:
        """Commits all that was polled."""
        for partition, offset in self._next.items():
            self._reader.commit(partition, offset, NOTHING)

    def rewind(self) -> None:
        """Reads again what was not committed."""
        self._reader.close()
        self._reader, self._next, self._lost = self._bus.reader(self._topic, self._group), {}, 0

    def close(self) -> None:
        """Leaves the group."""
        self._reader.close()

    def _passed(self, entry: Entry) -> None:
        """Notes an entry. Kafka has offsets without records, too: the reader knows what is lost."""
        awaited = self._next.get(entry.partition, entry.offset)
        if entry.offset > awaited and self._reader.lost > self._lost:
            self._gaps.append(Gap(entry.partition, awaited, self._reader.lost - self._lost))
            self._lost = self._reader.lost
        self._next[entry.partition] = entry.offset + 1
