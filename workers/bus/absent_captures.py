"""Declares the sources of a vanished capture process lost.

Over Kafka a capture may vanish with its machine, and no other process would report it. So one
consumer group of each chunk topic monitors the sources of its partitions. It publishes to the same
topic, under the same key, that a silent source is lost (`workers/capture/heartbeat.py`).

A source is silent only if no record of it was published; a record that is not read yet is not
silence. So every `ENDS_ASKED_EVERY_NS` the reader asks the brokers for the end offset of the topic.
When it has read up to there, it has seen all records published by that time, and a source without
one for its patience before that time is lost. A backlog is not silence: the reader is not at that
offset. Nor is an outage: after `MAX_ANSWER_GAP` ns without an answer the patience of all sources
restarts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from pipeline import codec, stages, topics
from pipeline.config.schema import Site
from pipeline.errors import DecodeError, OutsideError
from pipeline.ports import Assigned, Bus, Entry, Reader, Revoked
from pipeline.sources import roster
from pipeline.types import SECOND, Record
from workers.capture import factory
from workers.capture.heartbeat import LOST_AFTER, HeartbeatMonitor, may_be_from_monitor

ENDS_ASKED_EVERY_NS = 2 * SECOND  # ns between two requests for the end offsets
# A longer gap between two answers restarts the wait of every source; shorter than any patience.
MAX_ANSWER_GAP = 10 * SECOND
# After an outage every source gets so much more time, because captures reconnect one by one.
OUTAGE_GRACE = 45 * SECOND
MAX_WORD_BYTES = 4096  # bytes; a larger entry is not from a heartbeat monitor

Expected = tuple[str, str, tuple[str, ...], int]  # site, source, roster, patience in ns


class EndOffsets(Protocol):
    """The end offsets of a topic by partition, and the partition of a key; both raise
    OutsideError."""

    def end(self, topic: str) -> Mapping[int, int]: ...
    def partition_of(self, topic: str, key: str) -> int: ...


def expected(sites: Mapping[str, Site], topic: str, patience: int) -> Iterator[Expected]:
    """The sources that publish to a chunk topic; `patience` (ns) is that of a usual source."""
    for name, site in sites.items():
        of = roster(site.cameras, site.microphones)
        for source in factory.sources(site)[topic]:
            camera = site.cameras.get(source)
            yield name, source, of, factory.silence_limit(camera, patience) if camera else patience


class AbsenceDetectingBus:
    """A bus whose readers of chunks declare the sources of vanished captures lost.

    `bus` reads and publishes; `offsets` returns the offsets of its topics. If the input is a
    recording, a lost source is part of the recording: then use `bus` itself.
    """

    def __init__(
        self, bus: Bus, offsets: EndOffsets, sites: Mapping[str, Site], patience: int = LOST_AFTER
    ) -> None:
        self._bus, self._offsets = bus, offsets
        self._sites, self._patience = sites, patience
        self.publish, self.flush = bus.publish, bus.flush
        self.fetch, self.close = bus.fetch, bus.close

    def reader(self, topic: str, group: str) -> Reader:
        """The group's reader; an `AbsenceDetectingReader` for the group that monitors the topic."""
        reader = self._bus.reader(topic, group)
        if stages.SPEAKS.get(topic) != group:
            return reader
        who = list(expected(self._sites, topic, self._patience))
        return AbsenceDetectingReader(reader, self._bus, self._offsets, topic, who)


class _WatchedPartition:
    """A partition of this reader: the offset read up to, and the monitor of its sources."""

    def __init__(self, offset: int, watch: HeartbeatMonitor) -> None:
        self.next = offset  # the next offset to read
        self.moved = False  # an entry was read; before that, retention may have moved `next`
        self.watch = watch
        self.asked: tuple[int, int, int] | None = None  # end offset, with clock and event time then


class AbsenceDetectingReader:
    """A reader of a chunk topic that declares silent sources lost; not thread safe.

    `clock` returns monotonic ns; `utc` returns the event time of the published records, ns. Raises
    what the reader raises, and OutsideError when a record cannot be published.
    """

    def __init__(
        self,
        reader: Reader,
        bus: Bus,
        offsets: EndOffsets,
        topic: str,
        who: Sequence[Expected],
        clock: Callable[[], int] = time.monotonic_ns,
        utc: Callable[[], int] = time.time_ns,
    ) -> None:
        self._reader, self._bus, self._offsets = reader, bus, offsets
        self._topic, self._who = topic, who
        self._known = {(site, source) for site, source, _, _ in who}  # others left the config
        self._clock, self._utc = clock, utc
        self._parts: dict[int, _WatchedPartition] = {}
        self._new: set[int] = set()  # partitions whose sources are not known yet
        self._looked = self._answered = clock()

    @property
    def lost(self) -> int:
        """The number of entries that retention deleted before they were read."""
        return self._reader.lost

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        """Polls the reader, and publishes that silent sources are lost."""
        events = self._reader.poll(limit, wait)
        for event in events:
            match event:
                case Assigned():
                    self._parts[event.partition] = _WatchedPartition(
                        event.offset, HeartbeatMonitor(self._clock)
                    )
                    self._new.add(event.partition)
                case Revoked():
                    self._parts.pop(event.partition, None)
                    self._new.discard(event.partition)
                case Entry():
                    self._heard(event)
        if self._clock() - self._looked >= ENDS_ASKED_EVERY_NS:
            self._look()
        for number, part in self._parts.items():
            self._speak(number, part)
        return events

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        """Commits by the reader."""
        self._reader.commit(partition, offset, note)

    def behind(self, partition: int) -> int:
        """The number of waiting entries by the reader; at least 1 if it is not known."""
        return self._reader.behind(partition)

    def close(self) -> None:
        """Closes the reader and stops the monitoring."""
        self._parts.clear()
        self._reader.close()

    def _heard(self, entry: Entry) -> None:
        part = self._parts[entry.partition]
        part.next, part.moved = entry.offset + 1, True
        site, _, source = entry.key.partition("/")
        if (site, source) not in self._known:
            return
        record = _small(entry)
        if record is None or not may_be_from_monitor(record):
            part.watch.heard(self._topic, site, source)
        else:
            part.watch.noted(record)

    def _look(self) -> None:
        """Requests the end offsets, and the sources of new partitions."""
        now, upto = self._clock(), self._utc()
        try:
            ends = self._offsets.end(self._topic)
            if self._new:
                self._expect()
        except OutsideError:
            ends = None
        self._looked = self._clock()
        if ends is None:
            self._excuse(OUTAGE_GRACE)
            return
        if self._looked - self._answered > MAX_ANSWER_GAP:
            self._excuse(0)
        self._answered = self._looked
        for number, part in self._parts.items():
            if part.asked is None and number in ends:
                part.asked = (ends[number], now, upto)

    def _excuse(self, more: int) -> None:
        for part in self._parts.values():
            part.watch.excuse(more)
            part.asked = None

    def _expect(self) -> None:
        for site, source, of, patience in self._who:
            number = self._offsets.partition_of(self._topic, f"{site}/{source}")
            if number in self._new:
                self._parts[number].watch.expect(self._topic, site, source, of, patience)
        self._new.clear()

    def _speak(self, number: int, part: _WatchedPartition) -> None:
        """Publishes lost sources once the reader has reached the end offset that was requested."""
        if part.asked is None:
            return
        end, by, upto = part.asked
        if part.next < end and (part.moved or self._reader.behind(number)):
            return
        part.asked = None
        said = part.watch.speak(by, upto)
        for topic, record in said:
            self._bus.publish(topic, topics.key_of(topic, record), codec.encode(record))
        if said:
            self._bus.flush()


def _small(entry: Entry) -> Record | None:
    """The record of an entry that a HeartbeatMonitor of any process may have published."""
    if len(entry.value) > MAX_WORD_BYTES:
        return None
    try:
        return codec.decode(entry.value)
    except DecodeError:
        return None
