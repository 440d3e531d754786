"""The stored frames, sound and reports of a span, in the order in which they became known.

Each topic is stored in an order of its own. The topics are merged by event time, and each keeps its
order: what depends on it, such as a promise of a lost source, stays where it was.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol, runtime_checkable

import msgspec

from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.sources import REPORTS_SOURCE, known_at
from pipeline.types import (
    FOREVER,
    Any,
    AudioChunk,
    Described,
    Detections,
    FrameChunk,
    Progress,
    Report,
    Sound,
    Utterance,
    event_start,
    rfc3339,
)
from workers.bus.history import History
from workers.stages.sound import NOT_HEARD
from workers.stages.speech import NOT_TRANSCRIBED

_AHEAD = 16  # entries: of so many the earliest time counts, as one clock may have jumped ahead


class Chunk(msgspec.Struct, frozen=True):
    """One entry of a chunk topic with its record; None for bytes that are no record."""

    topic: str
    entry: Entry
    record: Any | None


def chunks_between(settings: Config, stored: History, start: int, end: int) -> Iterator[Chunk]:
    """Yields the entries of all chunk topics that start in `[start, end)` ns, and neighbours.

    Chunks are kept for a shorter time than observations, and a recording has none of its run-up. So
    what was observed before the first chunk of a topic comes, too, as entries of `observations.v1`.
    """
    streams: list[Iterator[tuple[int, Chunk]]] = []
    begins: dict[str, int] = {}
    for topic in topics.CHUNKS:
        for entries in _streams(stored, topic, start, end):
            keyed = _keyed(topic, entries)
            first = next(keyed, None)
            if first is not None:
                begins[topic] = min(first[0], begins.get(topic, FOREVER))
                streams.append(chain((first,), keyed))
    streams += [
        _before(settings, begins, _keyed(topics.OBSERVATIONS, entries))
        for entries in _streams(stored, topics.OBSERVATIONS, start, end)
    ]
    for _, chunk in heapq.merge(*streams, key=lambda item: item[0]):
        yield chunk


def _before(
    settings: Config, begins: Mapping[str, int], observed: Iterable[tuple[int, Chunk]]
) -> Iterator[tuple[int, Chunk]]:
    """What was observed of each source before the chunks of its topic begin."""
    cameras = {(name, of) for name, site in settings.sites.items() for of in site.cameras}
    for at, chunk in observed:
        record = chunk.record
        if record is None:
            continue
        if record.source == REPORTS_SOURCE:
            topic = topics.REPORTS
        else:
            seen = (record.site, record.source) in cameras
            topic = topics.FRAMES if seen else topics.AUDIO
        if event_start(record) < begins.get(topic, FOREVER):
            yield at, chunk


@runtime_checkable
class Partitioned(Protocol):
    """A history that gives each partition of a topic apart; others give all of them by time."""

    def streams(self, topic: str, start: int, end: int) -> Sequence[Iterator[Entry]]: ...


def _streams(stored: History, topic: str, start: int, end: int) -> Sequence[Iterator[Entry]]:
    if isinstance(stored, Partitioned):
        return stored.streams(topic, start, end)
    return [stored.between(topic, start, end)]


def _keyed(topic: str, entries: Iterable[Entry]) -> Iterator[tuple[int, Chunk]]:
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
    """Chunks of a topic that are not stored, though `observed` of them were observed once.

    `begins` is the time of the first stored one, RFC 3339; empty: there is none.
    """

    topic: str
    begins: str
    observed: int

    def __str__(self) -> str:
        what = f"{self.topic} begins at {self.begins}" if self.begins else f"{self.topic} is empty"
        return (
            f"{what}: {self.observed} older observations are judged as they are, because their "
            "chunks are no longer stored (storage.frames)"
        )


def missing(firsts: Mapping[str, int], observed: Mapping[str, int]) -> list[Missing]:
    """Returns what is missing: `firsts` is the start (ns) of the first chunk by topic, `observed`
    how many observations stand for chunks."""
    return [
        Missing(topic=topic, begins=_at(firsts[topic]) if topic in firsts else "", observed=count)
        for topic, count in observed.items()
        if count
    ]


def chunk_topic(record: Any) -> str | None:
    """The topic of the chunk of an observation; None for a record that is none."""
    match record:
        case Detections():
            return topics.FRAMES
        case Sound() | Utterance():
            return topics.AUDIO
        case Described():
            return topics.REPORTS
        case _:
            return None


def is_chunk(record: Any) -> bool:
    """Whether a record is something that was seen, heard or reported."""
    return isinstance(record, FrameChunk | AudioChunk | Report)


def _at(time: int) -> str:
    return f"{rfc3339(time)[:19]}Z"
