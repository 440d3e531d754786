"""Runs the encoders and judges again over stored frames, sound and reports of live sources.

Nothing is left out because a stage is slow. So what live vision passed over is looked at here, and
the alerts may differ where that happened. Everything else is as it was: a source that was lost is
lost again, as capture has said so in the same topics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial

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
from workers.stored.at_once import AtOnce
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
        )
        self._lines: dict[int, Line] = {}
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
        with closing(AtOnce()) as at_once:
            for batch in self._pace.batches(chunks, _time_of):
                if self._reaches(batch) >= self._until and self._done():
                    break
                self._judge(batch, at_once)
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

    def _reaches(self, batch: list[Chunk]) -> int:
        times = [event_start(chunk.record) for chunk in batch if chunk.record is not None]
        return min(times, default=0)

    def _done(self) -> bool:
        return all(floor >= self._until for line in self._lines.values() for floor in line.floors)

    def _judge(self, batch: list[Chunk], at_once: AtOnce) -> None:
        touched: dict[int, Line] = {}
        for chunk in batch:
            self.entries += 1
            site = chunk.entry.key.partition("/")[0]
            number = self._observed.partitions.get(site, 0)
            if number not in self._lines:
                self._lines[number] = self._make()
            line = touched[number] = self._lines[number]
            self._publish(line, site, chunk)
        for line in touched.values():
            line.run(at_once)
            self._alerts += line.alerts()

    def _publish(self, line: Line, site: str, chunk: Chunk) -> None:
        entry, record = chunk.entry, chunk.record
        if record is None:
            line.bus.publish(chunk.topic, entry.key, entry.value, entry.trace)
            return
        if chunk.topic != topics.OBSERVATIONS and not self._selected.judges(site):
            # Its event times let the partition's time go on, as live; nothing more is needed.
            goes_on = Progress(site=site, source=record.source, upto=event_start(record))
            line.bus.publish(topics.OBSERVATIONS, site, codec.encode(goes_on), entry.trace)
            return
        kept = self._selected.kept(record)
        if kept is None:
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
        value = entry.value if kept is record else codec.encode(kept)
        line.bus.publish(chunk.topic, entry.key, value, entry.trace)


def _time_of(chunk: Chunk) -> int | None:
    return None if chunk.record is None else event_start(chunk.record)
