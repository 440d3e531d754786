"""The stored frames, sound and reports of a span, in the order in which they became known.

Each topic is stored in an order of its own. The topics are merged by event time, and each keeps its
order: what depends on it, such as a promise of a lost source, stays where it was.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.sources import known_at
from pipeline.types import (
    Any,
    AudioChunk,
    Detections,
    FrameChunk,
    Progress,
    Report,
    event_start,
    rfc3339,
)
from workers.bus.history import History
from workers.stages.sound import NOT_HEARD
from workers.stages.speech import NOT_TRANSCRIBED

_NEAR = 1000  # entries before the first chunk of a source: rosters and promises of others
_AHEAD = 16  # entries: of so many the earliest time counts, as one clock may have jumped ahead


class Chunk(msgspec.Struct, frozen=True):
    """One entry of a chunk topic with its record; None for bytes that are no record."""

    topic: str
    entry: Entry
    record: Any | None


def chunks_between(stored: History, start: int, end: int) -> Iterator[Chunk]:
    """Yields the entries of all chunk topics that start in `[start, end)` ns, and neighbours."""
    streams = [
        _keyed(i, topic, stored.between(topic, start, end)) for i, topic in enumerate(topics.CHUNKS)
    ]
    for _, chunk in heapq.merge(*streams, key=lambda item: item[0]):
        yield chunk


def _keyed(number: int, topic: str, entries: Iterable[Entry]) -> Iterator[tuple[int, Chunk]]:
    """Yields each entry with the earliest time of the next few, by which topics are merged."""
    waiting: deque[tuple[int, Chunk]] = deque()
    for entry in entries:
        try:
            record = codec.decode(entry.value)
        except DecodeError:
            record = None
        at = known_at(record) if record is not None else waiting[-1][0] if waiting else 0
        waiting.append((at, Chunk(topic, entry, record)))
        if len(waiting) > _AHEAD:
            yield min(each for each, _ in waiting), waiting.popleft()[1]
    while waiting:
        yield min(each for each, _ in waiting), waiting.popleft()[1]


class Observed(msgspec.Struct):
    """What the live stages made of the chunks of a span, as their observations tell.

    `partitions` are those of the sites in `observations.v1`.
    """

    partitions: dict[str, int] = msgspec.field(default_factory=dict)
    behind: dict[str, int] = msgspec.field(default_factory=dict)  # source -> answers left out
    _looked: dict[tuple[str, str], set[int]] = msgspec.field(default_factory=dict)
    _newest: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)

    @classmethod
    def between(cls, stored: History, start: int, end: int) -> Observed:
        """Reads the observations of `[start, end)` ns."""
        found = cls()
        for entry in stored.between(topics.OBSERVATIONS, start, end):
            found.partitions[entry.key] = entry.partition
            try:
                found._note(codec.decode(entry.value))
            except DecodeError:
                continue
        return found

    def _note(self, record: Any) -> None:
        who = record.site, record.source
        match record:
            case Detections():
                self._looked.setdefault(who, set()).add(record.start)
            case Progress(reason=reason) if reason in (NOT_HEARD, NOT_TRANSCRIBED):
                name = f"{record.site}/{record.source}"
                self.behind[name] = self.behind.get(name, 0) + 1
            case Progress(reason=reason) if reason.startswith("undecodable"):
                self._looked.setdefault(who, set()).add(record.upto - 1)
        if isinstance(record, Detections | Progress):
            self._newest[who] = max(event_start(record), self._newest.get(who, 0))

    def passed_over(self, record: Any) -> bool:
        """Whether live vision has passed over this frame, because there was no time for it."""
        if not isinstance(record, FrameChunk):
            return False
        who = record.site, record.source
        answered = record.start < self._newest.get(who, 0)
        return answered and record.start not in self._looked.get(who, ())


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """Chunks of a topic that were stored once and are deleted; times are RFC 3339."""

    topic: str
    begins: str  # what is older is no longer stored
    wanted: str

    def __str__(self) -> str:
        return (
            f"{self.topic} begins at {self.begins}, and is wanted from {self.wanted} on: what came "
            "between is no longer stored (storage.frames says how long it is kept)"
        )


class First(msgspec.Struct, frozen=True):
    """The first chunk of a topic that was read; `start` is its event time, ns."""

    partition: int
    offset: int
    start: int


def missing(
    settings: Config, firsts: Mapping[str, First], stored: History, wanted: int
) -> list[Missing]:
    """Returns what of `wanted` (ns) on is deleted.

    Where a topic is read from its oldest stored entry on, and this is not its first one, older
    entries are deleted.
    """
    wants = {
        topics.FRAMES: any(site.cameras for site in settings.sites.values()),
        topics.AUDIO: any(site.microphones for site in settings.sites.values()),
    }
    found = []
    for topic, needed in wants.items():
        first = firsts.get(topic)
        if not needed or first is None or first.start <= wanted:
            continue
        if 0 < stored.oldest(topic).get(first.partition, 0) >= first.offset - _NEAR:
            found.append(Missing(topic=topic, begins=_at(first.start), wanted=_at(wanted)))
    return found


def is_chunk(record: Any) -> bool:
    """Whether a record is something that was seen, heard or reported."""
    return isinstance(record, FrameChunk | AudioChunk | Report)


def _at(time: int) -> str:
    return f"{rfc3339(time)[:19]}Z"
