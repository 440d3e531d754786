"""Declares the sources of a vanished capture process lost.

Over Kafka a capture process may vanish with its machine, and then it cannot say that its sources
are lost. So one reader of each chunk topic watches the sources of its partitions. It publishes in
the same topic, under the same key, that they are lost (`workers/capture/heartbeat.py`).

A source that was not read is not always silent. The reader asks the brokers now and then where the
topic ends. Once it has read up to that end, it has seen all that was published until it asked. A
source of which it heard nothing for the patience before that was silent. A backlog is no silence,
because the reader has not come to the end. An outage is none either: when the brokers have not
answered for a while, the patience of every source begins anew.
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
from pipeline.types import SECOND
from workers.capture import factory
from workers.capture.heartbeat import LOST_AFTER, HeartbeatMonitor, spoken

ENDS_ASKED_EVERY = 2 * SECOND  # between two questions where the topic ends
# A longer gap between two answers restarts the wait of every source; shorter than any patience.
MAX_ANSWER_GAP = 10 * SECOND
# After an outage every source gets so much more time, because captures reconnect one by one.
OUTAGE_GRACE = 45 * SECOND
MAX_WORD_BYTES = 4096  # bytes; what is larger is no word of a watch

Expected = tuple[str, str, tuple[str, ...], int]  # site, source, roster, patience in ns


class EndOffsets(Protocol):
    """What brokers know of a topic; both raise OutsideError."""

    def end(self, topic: str) -> Mapping[int, int]: ...
    def partition_of(self, topic: str, key: str) -> int: ...


def expected(sites: Mapping[str, Site], topic: str, patience: int) -> Iterator[Expected]:
    """The sources that speak in a chunk topic; `patience` is that with a usual one, ns."""
    for name, site in sites.items():
        of = roster(site.cameras, site.microphones)
        for source in factory.sources(site)[topic]:
            camera = site.cameras.get(source)
            yield name, source, of, factory.quiet(camera, patience) if camera else patience


class AbsenceDetectingBus:
    """A bus whose readers of chunks speak for captures that are gone.

    `bus` reads and publishes, `offsets` is asked about its topics. Where the input is a recording
    a lost source is part of it: then nobody may speak, and the bus is to be used as it is.
    """

    def __init__(
        self, bus: Bus, offsets: EndOffsets, sites: Mapping[str, Site], patience: int = LOST_AFTER
    ) -> None:
        self._bus, self._offsets = bus, offsets
        self._sites, self._patience = sites, patience
        self.publish, self.flush = bus.publish, bus.flush
        self.fetch, self.close = bus.fetch, bus.close

    def reader(self, topic: str, group: str) -> Reader:
        """The group's reader; a `AbsenceDetectingReader` one where this group speaks for the
        topic's sources."""
        reader = self._bus.reader(topic, group)
        if stages.SPEAKS.get(topic) != group:
            return reader
        who = list(expected(self._sites, topic, self._patience))
        return AbsenceDetectingReader(reader, self._bus, self._offsets, topic, who)


class _WatchedPartition:
    """A partition that is ours: what of it was read, and who speaks there."""

    def __init__(self, offset: int, watch: HeartbeatMonitor) -> None:
        self.next = offset  # what is read next ...
        self.moved = False  # ... known for sure once something was: retention may have been here
        self.watch = watch
        self.asked: tuple[int, int, int] | None = None  # end of the topic; clock and event time


class AbsenceDetectingReader:
    """A reader of a chunk topic that tells who is silent there; for one thread.

    `clock` is ns that only go on, `utc` the event time of a word. Raises OutsideError, beside what
    the reader does, when such a word cannot be published.
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
        self._known = {(site, source) for site, source, _, _ in who}  # the others have left
        self._clock, self._utc = clock, utc
        self._parts: dict[int, _WatchedPartition] = {}
        self._new: set[int] = set()  # partitions whose sources are not known yet
        self._looked = self._answered = clock()

    @property
    def lost(self) -> int:
        """As the reader says."""
        return self._reader.lost

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        """What the reader gives; and perhaps a word is published for who is silent."""
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
        if self._clock() - self._looked >= ENDS_ASKED_EVERY:
            self._look()
        for number, part in self._parts.items():
            self._speak(number, part)
        return events

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        """As the reader does."""
        self._reader.commit(partition, offset, note)

    def behind(self, partition: int) -> int:
        """As the reader says."""
        return self._reader.behind(partition)

    def close(self) -> None:
        """Closes the reader; nobody is spoken for any more."""
        self._parts.clear()
        self._reader.close()

    def _heard(self, entry: Entry) -> None:
        part = self._parts[entry.partition]
        part.next, part.moved = entry.offset + 1, True
        site, _, source = entry.key.partition("/")
        if (site, source) in self._known and not _is_word(entry):
            part.watch.heard(self._topic, site, source)

    def _look(self) -> None:
        """Ask where the topic ends, and who speaks in partitions that are new."""
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
        """Once the reader has come as far as the topic went when it was asked."""
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


def _is_word(entry: Entry) -> bool:
    """Whether a watch may have said this, ours or another's."""
    if len(entry.value) > MAX_WORD_BYTES:
        return False
    try:
        return spoken(codec.decode(entry.value))
    except DecodeError:
        return False
