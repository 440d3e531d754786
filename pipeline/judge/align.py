"""Joins one site's observations into windows by event time (docs/explanations/windows.md).

A window closes when the *watermark*, the smallest promise over the sources of the roster, reaches
its end. The content of a window depends on the order of records within each source, never on how
the sources are interleaved.

Promises of one source, in ns:

    alive    made by the source itself: a record below it can only be a repeat
    promise  the largest by it or on its behalf (lost, stalled, new): a record below it is late
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable
from heapq import heappop, heappush
from typing import get_args

import msgspec

from pipeline import codec
from pipeline.types import (
    BEFORE_ALL,
    SECOND,
    Late,
    Observation,
    Presence,
    Progress,
    Record,
    Roster,
    Window,
)

_KINDS: dict[type, str] = {kind: kind.__name__ for kind in get_args(Observation)}

# start, source, kind, end: the order inside a window; unique among held observations
_Entry = tuple[int, str, str, int, Observation]
_Names = tuple[int, tuple[str, ...]]  # from this start on, the site has these sources


class Repeat(msgspec.Struct, frozen=True):
    """A record that was used before, or that its own source had promised would not come."""

    site: str
    source: str
    kind: str
    start: int


class Unknown(msgspec.Struct, frozen=True):
    """A record that no window can use; it goes to the dead letters, with `reason`."""

    record: Record
    reason: str


Output = Window | Late | Repeat | Unknown


class _Source:
    """The promises and lost spans of one source, and the keys that detect its repeats."""

    __slots__ = (
        "alive", "first", "promise", "queue", "said", "seen", "slot", "spans", "stalled", "until",
    )  # fmt: skip

    def __init__(self) -> None:
        self.alive = BEFORE_ALL
        self.promise = BEFORE_ALL
        self.said = BEFORE_ALL  # the largest promise that came as a record
        self.first: int | None = None  # the smallest start or promise of its records
        self.until: int | None = None  # start of the first roster without it
        self.stalled = False  # `declare_lost_until` declared it lost
        self.slot: int | None = None  # the hop of its last promise
        self.spans: list[tuple[int, int]] = []  # lost spans; ascending, with gaps between them
        self.seen: set[tuple[int, int, str]] = set()  # (start, end, kind) of possible repeats
        self.queue: list[tuple[int, int, str]] = []  # the same keys as a heap, for deletion

    def raise_to(self, upto: int, floor: int, *, lost: bool) -> None:
        """Raises the promise; the skipped time is lost, or was merely silent.

        Keys are kept from the source's own promise or `floor` on: they tell a repeat from a late
        record.
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
        """Returns the presence in a window without observations of this source."""
        lost = any(a < end and start < b for a, b in self.spans)
        return Presence.LOST if lost else Presence.SILENT

    def forget_spans(self, until: int) -> None:
        """Drops lost spans that no window from `until` on overlaps."""
        if self.spans and self.spans[0][1] <= until:
            self.spans = [span for span in self.spans if span[1] > until]


class Aligner:
    """The windows of one site: window i is `[i*hop, i*hop+size)`, all times int ns.

    `push` takes Detections, Sound, Utterance, Described, Progress and Roster records in log order.
    It returns closed windows, each once and in order, and a `Late`, `Repeat` or `Unknown` record.
    Windows that start below `floor` are not returned: after a restart they may be incomplete. An
    empty window is returned only if a source made a promise within `horizon - size` before it, so a
    clock that jumps by years is cheap.

    Memory is bounded: it holds observations that overlap an open window, none older than `size`
    before the limit of the last `declare_lost_until`; the keys of possible repeats, equally far
    back; and one number per hop and source. Raises ValueError unless `0 < hop <= size <= horizon`.
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
        self._slots: dict[int, list[_Entry]] = {}  # by hop of their start; not yet in `_open`
        self._filled = BEFORE_ALL  # hops below it have moved from `_slots` to `_open`
        self._open: list[_Entry] = []  # ascending; starts before the end of the last closed window
        self._words: list[int] = []  # heap of hops with a promise, not yet reached
        self._heard = BEFORE_ALL  # the last reached hop with a promise

    @property
    def watermark(self) -> int | None:
        """No later record starts before it, ns; None until every source has made a promise."""
        return self._watermark

    @property
    def floor(self) -> int:
        """The floor for a restart, ns: no later window depends on records that ended by then."""
        if self._watermark is None:
            return self._floor
        return max(self._floor, self._watermark - self._horizon)

    @property
    def held(self) -> int:
        """The number of observations held for open windows."""
        return len(self._open) + sum(map(len, self._slots.values()))

    def promise(self, source: str) -> int:
        """Returns the time, ns, before which no later record of a source counts."""
        known = self._sources.get(source)
        return known.promise if known else BEFORE_ALL

    def push(self, record: Record) -> list[Output]:
        """Returns the output of one more record; raises TypeError for a type that it cannot use."""
        if record.site != self.site:
            msg = f"a record of site {record.site!r} in the windows of {self.site!r}"
            raise ValueError(msg)
        if isinstance(record, Progress):
            return self._promised(record)
        if isinstance(record, Observation):
            return self._observed(record)
        if isinstance(record, Roster):
            return self._named(record)
        msg = f"windows are not made of {type(record).__name__}"
        raise TypeError(msg)

    def declare_lost_until(
        self, limit: int, speaking: Collection[str] = ()
    ) -> tuple[list[Output], list[str]]:
        """Declares sources without a promise up to `limit` (ns) lost, except those in `speaking`.

        Returns the windows that this closes, and the names of the sources newly declared lost.
        Without a roster nothing is held, and a restart need not go back further than the horizon.
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
        self._slots.setdefault(start // self._hop, []).append(entry)
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
        """Moves the watermark to the smallest promise, once every source has made one."""
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
            return []  # its windows are closed
        insort(rosters, (record.start, names), key=_order)
        for name in names:
            self._sources.setdefault(name, _Source())
        for name, source in self._sources.items():
            self._enrol(name, source)
        return self._advance()

    def _enrol(self, name: str, source: _Source) -> None:
        """Sets when a source joined without a break, or when the rosters stopped naming it."""
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
            return  # in the first roster: only its own records tell when it began
        joined = rosters[at][0]
        source.first = joined if source.first is None else min(source.first, joined)
        if source.promise < joined:
            source.raise_to(joined, self.floor, lost=False)

    def _forget_rosters(self) -> None:
        """Drops rosters older than every open window, and the sources that only they name."""
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
        """Returns the windows up to `last`, in order."""
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
        """Returns window `index`; None if it is empty and no source has made a promise for long."""
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
        """Returns the next index after an empty window: where records begin, or the open window."""
        ahead = last + 1
        if self._words:
            ahead = min(ahead, self._words[0] - self._size // self._hop + 1)
        if self._slots:
            starts = (entry[0] for entry in self._slots[min(self._slots)])
            ahead = min(ahead, (min(starts) - self._size) // self._hop + 1)
        return max(index + 1, ahead)

    def _presence(self, start: int, end: int, seen: Iterable[str]) -> dict[str, Presence]:
        """Returns the presence of sources on the roster at the window's start, or seen in it."""
        seen = set(seen)
        at = max(bisect_right(self._rosters, start, key=lambda roster: roster[0]) - 1, 0)
        return {
            name: Presence.PRESENT if name in seen else self._sources[name].presence(start, end)
            for name in sorted(seen.union(self._rosters[at][1]))
        }


def _order(roster: _Names) -> tuple[int, int, _Names]:
    """Sorts by start; of two rosters with the same start, the longer one counts."""
    return roster[0], len(roster[1]), roster


def _late(record: Observation, kind: str) -> Late:
    return Late(
        site=record.site,
        source=record.source,
        start=record.start,
        kind=kind,
        record=codec.encode(record),
    )
