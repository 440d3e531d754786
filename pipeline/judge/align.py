"""One site's observations, joined on time-aligned windows; no clock is read (docs/windows.md).

Two rules carry everything. A window closes when the *watermark*, the smallest promise over the
sources of the roster, has reached its end. And what a window holds is a function of what each
source said in its own order, never of how the sources were mixed on the way.

Promises of one source, in ns:

    alive    made by the source itself: what starts below it can only be a repeat
    promise  the largest made by it or *for* it (lost, stalled, joined late): below it is late
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable
from heapq import heappop, heappush

import msgspec

from pipeline import codec
from pipeline.types import (
    BEFORE_ALL,
    SECOND,
    Described,
    Detections,
    Late,
    Observation,
    Presence,
    Progress,
    Record,
    Roster,
    Sound,
    Utterance,
    Window,
)

_OBSERVATIONS = (Detections, Sound, Utterance, Described)
_KINDS: dict[type, str] = {kind: kind.__name__ for kind in _OBSERVATIONS}

# start, source, kind, end: the order inside a window, and unique among what is held
_Entry = tuple[int, str, str, int, Observation]
_Names = tuple[int, tuple[str, ...]]  # from this start on, the site has these sources


class Repeat(msgspec.Struct, frozen=True):
    """A record that was used before, or that its own source had promised would not come."""

    site: str
    source: str
    kind: str
    start: int


class Unknown(msgspec.Struct, frozen=True):
    """A record that no window can use: it belongs to the dead letters, with `reason`."""

    record: Record
    reason: str


Output = Window | Late | Repeat | Unknown


class _Source:
    """What one source has said so far."""

    __slots__ = (
        "alive", "first", "promise", "queue", "said", "seen", "slot", "spans", "stalled", "until",
    )  # fmt: skip

    def __init__(self) -> None:
        self.alive = BEFORE_ALL
        self.promise = BEFORE_ALL
        self.said = BEFORE_ALL  # the largest promise that came as a record
        self.first: int | None = None  # the smallest instant it spoke of
        self.until: int | None = None  # start of the roster that left it out
        self.stalled = False  # `declare_lost_until` speaks for it
        self.slot: int | None = None  # the hop of its last word
        self.spans: list[tuple[int, int]] = []  # lost; ascending, apart from each other
        self.seen: set[tuple[int, int, str]] = set()  # (start, end, kind) of what may come again
        self.queue: list[tuple[int, int, str]] = []  # the same as a heap, to forget by

    def raise_to(self, upto: int, floor: int, *, lost: bool) -> None:
        """Promise more; the time between is lost, or was merely silent.

        What was seen is remembered down to what the source promised itself, which tells a repeat
        from what is late, but not below `floor`.
        """
        if lost:
            if self.spans and self.spans[-1][1] == self.promise:
                self.spans[-1] = (self.spans[-1][0], upto)
            else:
                self.spans.append((self.promise, upto))
        if self.first is None or self.promise == BEFORE_ALL:
            self.first = upto if self.first is None else min(self.first, upto)
        self.promise = upto
        known = min(upto, max(self.alive, floor))
        while self.queue and self.queue[0][0] < known:
            self.seen.discard(heappop(self.queue))

    def presence(self, start: int, end: int) -> Presence:
        """Of a window in which nothing of this source was seen."""
        lost = any(a < end and start < b for a, b in self.spans)
        return Presence.LOST if lost else Presence.SILENT

    def forget_spans(self, until: int) -> None:
        """Drop the lost time that no window from `until` on overlaps."""
        if self.spans and self.spans[0][1] <= until:
            self.spans = [span for span in self.spans if span[1] > until]


class Aligner:
    """The windows of one site: window i is `[i*hop, i*hop+size)`, all times int ns.

    `push` takes Detections, Sound, Utterance, Described, Progress and Roster records in the order
    of the log, and gives what follows from each: closed windows in order, once; a `Late`, `Repeat`
    or `Unknown`. A window that starts below `floor` is not given: after a restart it may be
    incomplete. An empty window is given only where some source spoke within `horizon - size` before
    it, so that a clock which jumps by years costs nothing.

    Held at most: observations that overlap an open window, none older than `size` before the limit
    of the last `declare_lost_until`; the keys of what may still come again, so long back; one
    number a hop and source. Raises ValueError unless `0 < hop <= size <= horizon`.
    """

    def __init__(
        self, site: str, size: int, hop: int, *, horizon: int = 120 * SECOND, floor: int = 0
    ) -> None:
        if not 0 < hop <= size <= horizon:
            msg = f"windows need 0 < hop <= size <= horizon, not {hop}, {size}, {horizon} ns"
            raise ValueError(msg)
        self.site = site
        self._size = size
        self._hop = hop
        self._horizon = horizon
        self._floor = floor
        self._sources: dict[str, _Source] = {}
        self._rosters: list[_Names] = []  # ascending, see `_order`
        self._watermark: int | None = None
        self._index = 0  # of the first window that is still open
        self._closed = BEFORE_ALL  # ns; end of the last closed window
        self._slots: dict[int, list[_Entry]] = {}  # by hop of their start: not yet in `_open`
        self._filled = BEFORE_ALL  # the hops below it have gone from `_slots` to `_open`
        self._open: list[_Entry] = []  # ascending; starts before the end of the last closed window
        self._words: list[int] = []  # heap of hops in which a source spoke, not yet reached
        self._heard = BEFORE_ALL  # the last hop reached in which a source spoke

    @property
    def watermark(self) -> int | None:
        """Nothing new starts before it, ns; None until every source has spoken."""
        return self._watermark

    @property
    def floor(self) -> int:
        """What a restart goes back to, ns: no later window depends on what ended by then."""
        if self._watermark is None:
            return self._floor
        return max(self._floor, self._watermark - self._horizon)

    @property
    def held(self) -> int:
        """How many observations are kept for windows still open."""
        return len(self._open) + sum(map(len, self._slots.values()))

    def push(self, record: Record) -> list[Output]:
        """What follows from one more record; raises TypeError for a kind that has no place here."""
        if record.site != self.site:
            msg = f"a record of site {record.site!r} in the windows of {self.site!r}"
            raise ValueError(msg)
        if isinstance(record, Progress):
            return self._promised(record)
        if isinstance(record, _OBSERVATIONS):
            return self._observed(record)
        if isinstance(record, Roster):
            return self._named(record)
        msg = f"windows are not made of {type(record).__name__}"
        raise TypeError(msg)

    def declare_lost_until(
        self, limit: int, speaking: Collection[str] = ()
    ) -> tuple[list[Output], list[str]]:
        """Declares the sources lost that promised nothing up to `limit` (ns), but for `speaking`.

        Gives the windows that close by it, and the names of the sources that were not declared lost
        before. Without a roster nothing is held, and a restart need not go back beyond the horizon.
        """
        if not self._rosters:
            self._floor = max(self._floor, limit - self._horizon)
            return [], []
        if self._watermark is not None and self._watermark >= limit:
            return [], []
        said = [s.first for s in self._sources.values() if s.first is not None]
        since = max(self._floor, min(said, default=self._rosters[0][0]))
        names = []
        for name in self._rosters[-1][1]:
            source = self._sources[name]
            promised = since if source.promise == BEFORE_ALL else source.promise
            if promised >= limit or name in speaking:
                continue
            if not source.stalled:
                names.append(name)
            source.stalled = True
            source.raise_to(limit, self.floor, lost=True)
            self._word(source, limit)
        return self._advance(), names

    # -- observations

    def _observed(self, record: Observation) -> list[Output]:
        start, end, kind = record.start, record.end, _KINDS[type(record)]
        source = self._sources.get(record.source)
        if source is None:
            return [Unknown(record, "no roster of the site names this source")]
        if start < source.alive or (start, end, kind) in source.seen:
            return [Repeat(self.site, record.source, kind, start)]
        if not 0 <= end - start <= self._horizon:
            return [Unknown(record, "its span is negative or longer than the horizon")]
        if start < source.promise or start < self._closed:
            return [_late(record, kind)]
        if source.until is not None and start >= source.until:
            return [Unknown(record, "the roster at its start does not name this source")]
        key = (start, end, kind)
        source.seen.add(key)
        heappush(source.queue, key)
        if source.first is None or start < source.first:
            source.first = start
        entry = (start, record.source, kind, max(end, start + 1), record)
        slot = self._slots.get(start // self._hop)
        if slot is None:
            self._slots[start // self._hop] = [entry]
        else:
            slot.append(entry)
        return []

    # -- promises

    def _promised(self, record: Progress) -> list[Output]:
        source = self._sources.get(record.source)
        if source is None:
            return [Unknown(record, "no roster of the site names this source")]
        upto, before = record.upto, source.promise
        if record.alive and upto > source.alive:
            source.alive = upto
        if upto > source.said:
            source.said = upto
            self._word(source, upto)
        if upto <= before:
            return []
        source.stalled = False
        source.raise_to(upto, self.floor, lost=not record.alive)
        if self._watermark is not None and before > self._watermark:
            return []  # another source holds the watermark
        return self._advance()

    def _word(self, source: _Source, upto: int) -> None:
        slot = upto // self._hop
        if slot != source.slot:
            source.slot = slot
            heappush(self._words, slot)

    def _advance(self) -> list[Output]:
        """Move the watermark to the smallest promise, once every source has made one."""
        names = self._rosters[-1][1]
        lowest = min((self._sources[name].promise for name in names), default=BEFORE_ALL)
        if lowest == BEFORE_ALL or (self._watermark is not None and lowest <= self._watermark):
            return []
        if self._watermark is None:
            first = min(s.first for s in self._sources.values() if s.first is not None)
            self._index = (first - self._size) // self._hop + 1  # the earliest that holds it
        self._watermark = lowest
        return self._close((lowest - self._size) // self._hop)

    # -- rosters

    def _named(self, record: Roster) -> list[Output]:
        names = tuple(sorted(set(record.sources)))
        rosters = self._rosters
        at = bisect_right(rosters, _order((record.start, names)), key=_order)
        if at > 0 and rosters[at - 1][1] == names:
            return []
        begun = self._watermark is not None
        if begun and at == 0 and rosters[0][0] <= self._index * self._hop:
            return []  # of a time whose windows are closed
        insort(rosters, (record.start, names), key=_order)
        for name in names:
            self._sources.setdefault(name, _Source())
        for name, source in self._sources.items():
            self._enrol(name, source)
        return self._advance()

    def _enrol(self, name: str, source: _Source) -> None:
        """See since when the rosters name a source without a break, or when they ceased to."""
        rosters = self._rosters
        at = len(rosters)
        if name not in rosters[-1][1]:
            while at > 0 and name not in rosters[at - 1][1]:
                at -= 1
            source.until = rosters[at][0]
            return
        source.until = None
        while at > 0 and name in rosters[at - 1][1]:
            at -= 1
        if at == 0:
            return  # named from the beginning: only its own words say when it began
        joined = rosters[at][0]
        source.first = joined if source.first is None else min(source.first, joined)
        if source.promise < joined:
            source.raise_to(joined, self.floor, lost=False)

    def _forget_rosters(self) -> None:
        """Drop those that no open window starts under, and the sources that only they named."""
        rosters = self._rosters
        start = self._index * self._hop
        if len(rosters) < 2 or rosters[1][0] > start:
            return
        while len(rosters) > 1 and rosters[1][0] <= start:
            del rosters[0]
        named = {name for _, names in rosters for name in names}
        for name in [name for name in self._sources if name not in named]:
            del self._sources[name]

    # -- windows

    def _close(self, last: int) -> list[Output]:
        """The windows up to `last`, in order."""
        closed: list[Output] = []
        while self._index <= last:
            window = self._window(self._index)
            if window is None:
                self._index = self._next(self._index, last)
                continue
            if window.start >= self._floor:
                closed.append(window)
            self._index += 1
        self._closed = max(self._closed, (self._index - 1) * self._hop + self._size)
        for source in self._sources.values():
            source.forget_spans(self._index * self._hop)
        self._forget_rosters()
        return closed

    def _window(self, index: int) -> Window | None:
        """Window `index`; None where it is empty and nobody has spoken for long."""
        hop, start = self._hop, index * self._hop
        end = start + self._size
        whole = end // hop  # hops below it are complete
        entries = [entry for entry in self._open if entry[3] > start]
        for slot in range(max(index, self._filled), whole):
            if (fresh := self._slots.pop(slot, None)) is not None:
                fresh.sort()
                entries += [entry for entry in fresh if entry[3] > start]
        self._open, self._filled = entries, whole
        if end % hop and (fresh := self._slots.get(whole)) is not None:
            entries = entries + sorted(entry for entry in fresh if entry[0] < end)
        while self._words and self._words[0] < whole:
            self._heard = max(self._heard, heappop(self._words))
        if not entries and self._heard < index - (self._horizon - self._size) // hop:
            return None
        return Window(
            site=self.site,
            index=index,
            start=start,
            end=end,
            observations=tuple([entry[4] for entry in entries]),
            presence=self._presence(start, end, {entry[1] for entry in entries}),
        )

    def _next(self, index: int, last: int) -> int:
        """The window to go on with after an empty one: where something begins, or the open one."""
        ahead = last + 1
        if self._words:
            ahead = min(ahead, self._words[0] - self._size // self._hop + 1)
        if self._slots:
            starts = (entry[0] for entry in self._slots[min(self._slots)])
            ahead = min(ahead, (min(starts) - self._size) // self._hop + 1)
        return max(index + 1, ahead)

    def _presence(self, start: int, end: int, seen: Iterable[str]) -> dict[str, Presence]:
        """Of the sources on the roster at the window's start, and of those seen in it."""
        seen = set(seen)
        at = max(bisect_right(self._rosters, start, key=lambda roster: roster[0]) - 1, 0)
        return {
            name: Presence.PRESENT if name in seen else self._sources[name].presence(start, end)
            for name in sorted(seen.union(self._rosters[at][1]))
        }


def _order(roster: _Names) -> tuple[int, int, _Names]:
    """By start; of two that start together the longer counts, whichever came first."""
    return roster[0], len(roster[1]), roster


def _late(record: Observation, kind: str) -> Late:
    return Late(
        site=record.site,
        source=record.source,
        start=record.start,
        kind=kind,
        record=codec.encode(record),
    )
