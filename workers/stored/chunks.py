"""The stored frames, sound and reports of a span, in the order in which they became known.

Each topic is stored in an order of its own. The topics are merged by event time, and each keeps its
order: what depends on it, such as a promise of a lost source, stays where it was.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.sources import REPORTS_SOURCE, known_at
from pipeline.types import (
    BEFORE_ALL,
    SECOND,
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

_Place = tuple[str, str, str]  # topic, site and source of chunks

_GAP = 5 * SECOND  # ns without an entry, after which chunks of a source count as missing
_LATER = 3 * SECOND  # ns; more than the chunks of two topics are apart
_AHEAD = 16  # entries: of so many the earliest time counts, as one clock may have jumped ahead


class Chunk(msgspec.Struct, frozen=True):
    """One entry of a chunk topic with its record; None for bytes that are no record."""

    topic: str
    entry: Entry
    record: Any | None


def chunks_between(settings: Config, stored: History, start: int, end: int) -> Iterator[Chunk]:
    """Yields the entries of all chunk topics that start in `[start, end)` ns, and neighbours.

    Chunks are kept for a shorter time than observations, and a recording may have them around its
    incidents alone. Where those of a source are missing, what was observed comes in their place, as
    entries of `observations.v1`.
    """
    streams = [
        _keyed(topic, entries)
        for topic in (*topics.CHUNKS, topics.OBSERVATIONS)
        for entries in _streams(stored, topic, start, end)
    ]
    runs, numbers = _Runs(settings), itertools.count()
    held: list[_Held] = []  # a heap, until it is known whether there are chunks for them
    for at, chunk in heapq.merge(*streams, key=lambda item: item[0]):
        if chunk.topic == topics.OBSERVATIONS:
            if chunk.record is not None:
                known = max(at, _observed_at(chunk.record))
                heapq.heappush(held, _Held(known, next(numbers), chunk, chunk.record))
        else:
            if (begun := runs.note(chunk)) is not None:
                older = [one for one in held if runs.older(one.record, begun)]
                yield from _in_order(older)
                held = [one for one in held if one not in older]
                heapq.heapify(held)
            yield chunk
        due = []
        while held and held[0].at + _LATER <= at:
            due.append(heapq.heappop(held))
        yield from _in_order(one for one in due if runs.lacks(one.record))
    yield from _in_order(one for one in held if runs.lacks(one.record))


class _Held(NamedTuple):
    """An observation that waits until the chunks of its time have come.

    `at` (ns) is its own time: a stage that is behind publishes old times late, and what comes just
    before them is merged as early as they are.
    """

    at: int
    number: int  # in the order in which they came
    chunk: Chunk
    record: Any


def _in_order(held: Iterable[_Held]) -> Iterator[Chunk]:
    return (one.chunk for one in sorted(held, key=lambda one: one.number))


class _Run(msgspec.Struct):
    """Entries of a source that follow each other without a gap; times in ns.

    `before` is the newest entry before the gap.
    """

    begin: int
    newest: int
    before: int


def _begin(run: _Run, record: Any) -> int:
    """The begin of a run, ns; hearing rounds its promises down to whole seconds."""
    return run.begin // SECOND * SECOND if isinstance(record, Progress) else run.begin


class _Runs:
    """Where the chunks of each source are."""

    def __init__(self, settings: Config) -> None:
        sites = settings.sites.items()
        self._cameras = {(name, of) for name, site in sites for of in site.cameras}
        self._runs: dict[_Place, _Run] = {}

    def note(self, chunk: Chunk) -> _Place | None:
        """Notes an entry of a chunk topic; returns its place if its source had a gap before it."""
        record = chunk.record
        if record is None:
            return None
        place = (chunk.topic, record.site, record.source)
        begin, newest = event_start(record), known_at(record)
        run = self._runs.get(place)
        if run is not None and begin - run.newest <= _GAP:
            run.newest = max(run.newest, newest)
            return None
        self._runs[place] = _Run(begin, newest, BEFORE_ALL if run is None else run.newest)
        return place

    def older(self, record: Any, place: _Place) -> bool:
        """Whether a record of this place lies in the gap before the newest entries."""
        run = self._runs[place]
        return (
            self._place(record) == place
            and run.before < _reaches(record)
            and (event_start(record) < _begin(run, record))
        )

    def lacks(self, record: Any) -> bool:
        """Whether the chunk of what was observed is missing, or who would promise so much."""
        run = self._runs.get(self._place(record))
        if run is None:
            return True
        if event_start(record) < _begin(run, record):
            return _reaches(record) > run.before
        slack = _GAP if chunk_topic(record) is None else 0
        return _reaches(record) > run.newest + slack

    def _place(self, record: Any) -> _Place:
        if record.source == REPORTS_SOURCE:
            return topics.REPORTS, record.site, record.source
        if (record.site, record.source) in self._cameras:
            return topics.FRAMES, record.site, record.source
        return topics.AUDIO, record.site, record.source.partition("/")[0]


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
        at = waiting[-1][0] if waiting else 0
        if record is not None:
            at = _observed_at(record) if topic == topics.OBSERVATIONS else known_at(record)
        waiting.append((at, Chunk(topic, entry, record)))
        if len(waiting) > _AHEAD:
            yield min(each for each, _ in waiting), waiting.popleft()[1]
    while waiting:
        yield min(each for each, _ in waiting), waiting.popleft()[1]


def _reaches(record: Any) -> int:
    """The time up to which chunks are needed for a record of `observations.v1`, ns."""
    if isinstance(record, Sound | Utterance | Described):
        return record.end
    return event_start(record)


def _observed_at(record: Any) -> int:
    """The time at which a record of `observations.v1` is compared with the chunks there are."""
    return record.end if isinstance(record, Detections) else _reaches(record)


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
