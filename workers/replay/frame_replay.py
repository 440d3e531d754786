"""Runs the encoders and judges again over stored frames, sound and reports of live sources.

Nothing is left out because a stage is slow. So what live vision passed over is looked at here, and
the alerts may differ where that happened. Everything else is as it was: a source that was lost is
lost again, as capture has said so in the same topics.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from threading import Lock

import msgspec

from models.fusion.head import Head
from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.errors import OutsideError
from pipeline.stages import ALL_STAGES
from pipeline.types import Alert, FrameChunk, Progress, event_start
from workers.bus.history import History
from workers.replay.observation_replay import Line, Rejudged, seconds_within
from workers.replay.sent_alerts import overlapping
from workers.stages.encoders import Encoders
from workers.stored.chunks import (
    Chunk,
    Missing,
    Observed,
    chunk_topic,
    chunks_between,
    is_chunk,
    missing,
)
from workers.stored.pace import Pace
from workers.stored.selection import Selection
from workers.stored.stage_ahead import Published

# batches that are read ahead of those that are judged, for one camera; with more, fewer
BATCHES_AHEAD, LEAST_AHEAD = 32, 4


class FramesJudged(msgspec.Struct, frozen=True, kw_only=True):
    """How the stored chunks are, beside what was judged.

    `passed_over` counts frames that live vision had no time for, by source; `behind` what live
    hearing had no time for. `missing` is what is no longer stored.
    """

    frames: int
    passed_over: Mapping[str, int]
    behind: Mapping[str, int]
    missing: list[Missing]

    def lines(self) -> Iterator[str]:
        """Yields the lines of a summary for a person."""
        for each in self.missing:
            yield f"  {each}"
        for source, n in sorted(self.passed_over.items()):
            yield f"  {source}: live had no time to look at {n} frames, which are looked at here"
        for source in sorted(self.behind):
            yield f"  {source}: live was too far behind to hear everything, which is heard here"


class _Batch(msgspec.Struct, frozen=True):
    """Some chunks, and what is published for them by the number of the line."""

    chunks: Sequence[Chunk]
    entries: Mapping[int, Sequence[Published]]


class FrameJudging:
    """All stages over stored chunks; `run` takes the span once.

    `floors` and `recorded` are as in `Rejudging`. The sites of one partition of `observations.v1`
    share their stages, as they share the pace of time live.
    """

    def __init__(  # noqa: PLR0913
        self,
        config: Config,
        encoders: Encoders,
        since: int,
        until: int,
        *,
        heads: Mapping[str, Head],
        floors: Mapping[str, int],
        recorded: bool,
        selected: Selection,
        pace: Pace,
    ) -> None:
        self._config, self._selected, self._pace = config, selected, pace
        self._since, self._until = since, until
        self._wanted = min(floors.values(), default=since)  # ns; the first incident begins here
        self._make = partial(
            Line,
            config,
            encoders,
            heads,
            floors,
            recorded=recorded,
            sites=selected.sites,
            stages=ALL_STAGES,
            locks={name: Lock() for name in ALL_STAGES},
        )
        self._lines: dict[int, Line] = {}
        self._begun: set[int] = set()  # numbers of the lines that have judged something
        self._alerts: list[Alert] = []
        self._firsts: dict[str, int] = {}  # topic -> start of its first chunk, ns
        self._instead: Counter[str] = Counter()  # topic -> observations that stand for chunks
        self._over: Counter[str] = Counter()
        self._frames, self._last = 0, 0
        self.entries = 0

    def run(self, stored: History, begin: int, longest: int) -> None:
        """Judges from `begin` to the end of the span, and then at most `longest` ns more, until no
        incident of the span can change.

        Raises OutsideError if nothing is stored.
        """
        end = self._until + longest
        self._observed = Observed.between(stored, begin, end)
        chunks = chunks_between(self._config, stored, begin, end)
        try:
            for batch in self._given(self._pace.batches(chunks, _time_of)):
                if self._reaches(batch.chunks) >= self._until and self._done():
                    break
                self._judge(batch)
        finally:
            for line in self._lines.values():
                line.close()
        if not self._firsts:
            msg = (
                "no frame, sound or report of that time is stored: they are kept for "
                "storage.frames; --from observations judges what was seen and heard"
            )
            raise OutsideError(msg)
        self._missing = missing(self._firsts, self._instead)

    def result(self) -> Rejudged:
        """Returns what was judged."""
        alerts = overlapping(self._config, self._alerts, self._since, self._until)
        return Rejudged(
            alerts=alerts,
            anomalies=(),
            entries=self.entries,
            seconds=seconds_within(
                self._since, self._until, min(self._firsts.values()), self._last
            ),
        )

    def told(self) -> FramesJudged:
        """Returns how the chunks are."""
        return FramesJudged(
            frames=self._frames,
            passed_over=dict(self._over),
            behind=self._observed.behind,
            missing=self._missing,
        )

    def _reaches(self, batch: Sequence[Chunk]) -> int:
        times = [event_start(chunk.record) for chunk in batch if chunk.record is not None]
        return min(times, default=0)

    def _done(self) -> bool:
        begun = [self._lines[number] for number in self._begun]
        return all(floor >= self._until for line in begun for floor in line.floors)

    def _given(self, batches: Iterable[Sequence[Chunk]]) -> Iterator[_Batch]:
        """Yields the batches; the stages that work ahead have got some more of them then."""
        cameras = sum(len(site.cameras) for site in self._config.sites.values())
        most = max(LEAST_AHEAD, BATCHES_AHEAD // max(1, cameras))
        ahead = 0 if self._pace.waits else most  # a batch comes when it is due
        waiting: deque[_Batch] = deque()
        for chunks in batches:
            batch = _Batch(chunks=chunks, entries=self._entries(chunks))
            for number, entries in batch.entries.items():
                self._line(number).give(entries)
            waiting.append(batch)
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting

    def _entries(self, chunks: Sequence[Chunk]) -> Mapping[int, Sequence[Published]]:
        """What is published for the chunks, by the number of the line."""
        entries: defaultdict[int, list[Published]] = defaultdict(list)
        for chunk in chunks:
            if (entry := self._entry(chunk)) is not None:
                entries[self._number(chunk)].append(entry)
        return entries

    def _judge(self, batch: _Batch) -> None:
        for chunk in batch.chunks:
            self.entries += 1
            self._count(chunk)
        for number in dict.fromkeys(self._number(chunk) for chunk in batch.chunks):
            self._begun.add(number)
            line = self._line(number)
            line.run(batch.entries.get(number, ()))
            self._alerts += line.alerts()

    def _number(self, chunk: Chunk) -> int:
        return self._observed.partitions.get(_site(chunk), 0)

    def _line(self, number: int) -> Line:
        if number not in self._lines:
            self._lines[number] = self._make()
        return self._lines[number]

    def _elsewhere(self, chunk: Chunk) -> bool:
        """Whether the chunk is of a site that is not judged."""
        return chunk.topic != topics.OBSERVATIONS and not self._selected.judges(_site(chunk))

    def _entry(self, chunk: Chunk) -> Published | None:
        """What is published for a chunk; None for nothing."""
        entry, record = chunk.entry, chunk.record
        if record is None:
            return chunk.topic, entry.key, entry.value, entry.trace
        if self._elsewhere(chunk):
            # Its event times let the partition's time go on, as live; nothing more is needed.
            site = _site(chunk)
            goes_on = Progress(site=site, source=record.source, upto=event_start(record))
            return topics.OBSERVATIONS, site, codec.encode(goes_on), entry.trace
        kept = self._selected.kept(record)
        if kept is None:
            return None
        value = entry.value if kept is record else codec.encode(kept)
        return chunk.topic, entry.key, value, entry.trace

    def _count(self, chunk: Chunk) -> None:
        site, record = _site(chunk), chunk.record
        if record is None or self._elsewhere(chunk) or self._selected.kept(record) is None:
            return
        of = chunk_topic(record)
        if of is not None and self._selected.judges(site) and event_start(record) >= self._wanted:
            self._instead[of] += 1
        if is_chunk(record):
            self._firsts.setdefault(chunk.topic, event_start(record))
            self._last = event_start(record)
        if isinstance(record, FrameChunk):
            self._frames += 1
            if self._observed.passed_over(record):
                self._over[f"{site}/{record.source}"] += 1


def _site(chunk: Chunk) -> str:
    return chunk.entry.key.partition("/")[0]


def _time_of(chunk: Chunk) -> int | None:
    return None if chunk.record is None else event_start(chunk.record)
