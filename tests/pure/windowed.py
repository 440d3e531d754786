"""A small windowed stage, the happenings that feed it, and a bus that breaks off anywhere.

Site by site it closes a window each `HOP`, when both of its sources `a` and `b` have promised that
nothing comes before the window's end; what a window says depends on all that happened within
`HORIZON` before that, and on nothing that ended earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from pipeline import codec, topics
from pipeline.ports import Assigned, Bus, Entry, Reader, Revoked
from pipeline.types import SECOND, Anomaly, Progress, Record, Sound, content_id

HORIZON = 2 * SECOND
HOP = SECOND // 4
SOURCES = ("a", "b")
GAPS = (0, 1, 333_333_333, 990_000_000, 2_700_000_001)  # ns
LENGTHS = (10_000_001, 500_000_000, 2_345_678_901)  # ns

Happening = tuple[str, int, int, int, int]
happenings = st.lists(
    st.tuples(
        st.sampled_from(["sound", "sound", "sound", "repeat", "junk"]),
        st.sampled_from([0, 0, 1, 2]),  # site
        st.integers(0, 1),  # source; one that is drawn seldom stalls its site
        st.sampled_from(range(len(GAPS))),
        st.integers(0, 2),
    ),
    min_size=10,
    max_size=70,
)


def told(happened: Sequence[Happening]) -> list[tuple[str, bytes]]:
    """The (key, value) of a topic in which all this is told; at the end every source goes on."""
    at: dict[tuple[str, str], int] = {}
    entries: list[tuple[str, bytes]] = []
    for kind, where, which, gap, length in happened:
        site, source = f"site{where}", SOURCES[which]
        ours = [entry for entry in entries if entry[0] == site]
        if kind == "sound":
            start = at.get((site, source), 0) + GAPS[gap]
            end = start + LENGTHS[length]
            at[site, source] = start + 1
            for record in (
                Sound(site=site, source=source, start=start, end=end, loudness_db=float(gap)),
                Progress(site=site, source=source, upto=start + 1),
            ):
                entries.append((site, codec.encode(record)))
        elif kind == "repeat" and ours:
            entries.append(ours[-1 - (7 * gap + length) % len(ours)])
        elif kind == "junk":
            entries.append((site, b"junk %d" % len(entries)))
    end = max(at.values(), default=0) + 3 * SECOND
    for site, source in sorted({(site, source) for site, _ in at for source in SOURCES}):
        entries.append((site, codec.encode(Progress(site=site, source=source, upto=end))))
    return entries


class Windowed:
    """The stage; `calls` counts the records that `infer` was asked about."""

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, batch: Sequence[Record]) -> list[float | None]:
        self.calls += len(batch)
        return [r.loudness_db * 2 if isinstance(r, Sound) else None for r in batch]

    def open(self, floors: dict[str, int]) -> WindowedState:
        return WindowedState(floors)


class WindowedState:
    def __init__(self, floors: dict[str, int]) -> None:
        self._floors = floors
        self._sites: dict[str, _Site] = {}

    def on(self, record: Record, inferred: Any) -> list[Record]:
        if record.site not in self._sites:
            self._sites[record.site] = _Site(record.site, self._floors.get(record.site, -HORIZON))
        return self._sites[record.site].on(record, inferred)

    def floor(self, site: str) -> int:
        return self._sites[site].floor


class _Site:
    def __init__(self, name: str, floor: int) -> None:
        self.name = name
        self.floor = floor
        self._promised: dict[str, int] = {}
        self._held: dict[tuple[str, int], tuple[int, float]] = {}
        self._next = floor // HOP + 1  # the end of the next window, in hops

    def on(self, record: Record, inferred: Any) -> list[Record]:
        match record:
            case Sound():
                key = (record.source, record.start)
                if record.start < self._promised.get(record.source, record.start):
                    return []
                if key in self._held:
                    return []
                self._held[key] = (record.end, inferred)
                return [self._anomaly(record.source, record.start, record.end, inferred, ())]
            case Progress():
                before = self._promised.get(record.source, record.upto)
                self._promised[record.source] = max(before, record.upto)
                return self._close()
        raise AssertionError(record)

    def _close(self) -> list[Record]:
        if len(self._promised) < len(SOURCES):
            return []
        watermark = min(self._promised.values())
        made = []
        while self._next * HOP <= watermark:
            end = self._next * HOP
            known = sorted((k, v) for k, v in self._held.items() if k[1] < end)
            known = [(k, v) for k, v in known if v[0] > end - HORIZON]
            reasons = tuple(f"{source}@{start}={said}" for (source, start), (_, said) in known)
            made.append(self._anomaly("window", end - HORIZON, end, len(known), reasons))
            self._next += 1
        self.floor = max(self.floor, watermark - HORIZON)
        self._held = {key: held for key, held in self._held.items() if held[0] > self.floor}
        return made

    def _anomaly(
        self, rule: str, start: int, end: int, score: float, reasons: tuple[str, ...]
    ) -> Record:
        return Anomaly(
            id=content_id(self.name, rule, start, end),
            site=self.name,
            source="window",
            start=start,
            end=end,
            rule=rule,
            label="test",
            severity="low",
            score=score,
            reasons=reasons,
        )


class Crash(Exception):
    """The process is gone."""


class Fuse:
    """Burns down by one at each place where a process may die, until it does. None: never."""

    def __init__(self, steps: int | None) -> None:
        self.left = steps

    def burn(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            raise Crash


class FusedStage:
    """The stage in a process that may die while it infers or thinks."""

    def __init__(self, stage: Windowed, fuse: Fuse) -> None:
        self.stage, self.fuse = stage, fuse

    def infer(self, batch: Sequence[Record]) -> list[float | None]:
        self.fuse.burn()
        return self.stage.infer(batch)

    def open(self, floors: dict[str, int]) -> FusedState:
        return FusedState(self.stage.open(floors), self.fuse)


class FusedState:
    def __init__(self, state: WindowedState, fuse: Fuse) -> None:
        self.state, self.fuse = state, fuse

    def on(self, record: Record, inferred: Any) -> list[Record]:
        self.fuse.burn()
        return self.state.on(record, inferred)

    def floor(self, site: str) -> int:
        return self.state.floor(site)


class FusedBus:
    """A bus as a process sees it that may die before, amid and after each flush and commit.

    What such a process published and did not flush is gone, or partly there: `publish` may buffer.
    """

    def __init__(self, bus: Bus, fuse: Fuse) -> None:
        self.bus, self.fuse = bus, fuse
        self.pending: list[tuple[str, str, bytes]] = []

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        self.fuse.burn()
        self.pending.append((topic, key, value))

    def flush(self) -> None:
        self.fuse.burn()
        for message in self.pending:
            try:
                self.fuse.burn()
            except Crash:
                self.bus.flush()
                raise
            self.bus.publish(*message)
        self.bus.flush()
        self.pending.clear()
        self.fuse.burn()

    def reader(self, topic: str, group: str) -> FusedReader:
        return FusedReader(self.bus.reader(topic, group), self.fuse)

    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]:
        return self.bus.fetch(topic, key, start, end)

    def close(self) -> None:
        self.bus.close()


class FusedReader:
    def __init__(self, reader: Reader, fuse: Fuse) -> None:
        self.reader, self.fuse = reader, fuse

    @property
    def lost(self) -> int:
        return self.reader.lost

    def behind(self, partition: int) -> int:
        return self.reader.behind(partition)

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        self.fuse.burn()
        return self.reader.poll(limit, wait)

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        self.fuse.burn()
        self.reader.commit(partition, offset, note)
        self.fuse.burn()

    def close(self) -> None:
        self.reader.close()


def by_site(values: Sequence[bytes]) -> dict[str, list[Record]]:
    """What was published, in order, site by site; a dead letter without its own place."""
    sites: dict[str, list[Record]] = {}
    for value in values:
        record = codec.decode(value)
        sites.setdefault(topics.key_of(topics.ANOMALIES, record), []).append(record)
    return sites
