"""Judges stored observations again by the present rules: why an alert did or did not come.

Reads `observations.v1` from the local log (even while the daemon runs) or from Kafka, and sends it
through fusion and alerting on a bus in memory. No encoder runs again, nothing is delivered, and no
live data changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from threading import Lock

import msgspec

from models.fusion.head import Head
from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config, Site
from pipeline.errors import DecodeError
from pipeline.host import pack, site_hash, unpack
from pipeline.judge.refusal import CollectorOf
from pipeline.ports import Entry, Reader
from pipeline.run import Runner, drain
from pipeline.stages import JUDGES
from pipeline.tracking.track import FAITH, HIDDEN
from pipeline.types import ROSTER_EVERY, SECOND, Alert, Anomaly, Record, event_start, ns
from workers import graph
from workers.replay.sent_alerts import overlapping
from workers.runtime.status import Status
from workers.stages.encoders import Encoders
from workers.stored.pace import Pace
from workers.stored.selection import ALL, Selection
from workers.stored.stage_ahead import Published, StageAhead

PUBLISHED_AT_ONCE = 500  # entries published before the stages run, so that memory stays bounded


class Rejudged(msgspec.Struct, frozen=True, kw_only=True):
    """The alert revisions in order, all anomalies of fusion, and the number of entries read.

    `seconds` is the event time of the span in which anything is stored.
    """

    alerts: Sequence[Alert]
    anomalies: Sequence[Anomaly]
    entries: int
    seconds: float = 0.0


def span(config: Config, since: int, until: int) -> tuple[int, int]:
    """Returns the append times, ns, of all entries that matter for `[since, until)`.

    The states need one horizon before it, and what was there at its begin: objects that were still,
    hidden or faint. They know a silent source as lost after their patience. Entries that a slow
    worker or an outage delayed come after it.
    """
    before = max(map(_before, config.sites.values())) + ROSTER_EVERY
    return since - before, until + max(ns(site.windows.patience) for site in config.sites.values())


def _before(site: Site) -> int:
    windows = site.windows
    faith = max(FAITH, ns(windows.horizon))
    # A place is kept for so long after something stood still there; that may have been faint for
    # as long before.
    there = 2 * faith + ns(site.stationary.after) + HIDDEN if site.cameras else 0
    return ns(windows.horizon + windows.size) + max(ns(windows.patience), there)


class Begin(msgspec.Struct, frozen=True):
    """The first entry that was read of a partition; `start` is its event time in ns."""

    offset: int
    start: int


class Rejudging:
    """Fusion and alerting over stored observations; `feed` takes them in log order.

    `floors` are the times, in ns by site, from which on anomalies count. Each partition has its own
    stages, as it has live, because the silence of a source is measured by the partition's time. So
    a replay of one site reads the records of all sites, too.
    `anomalies` keeps those of fusion. `recorded`: a recording was observed, whose lost sources are
    part of it. `pace` is told the event time (ns) that each batch has reached, before it is judged.
    `refusals` gives the collector of what stood in the way of a site's alerts.
    """

    def __init__(  # noqa: PLR0913
        self,
        config: Config,
        encoders: Encoders,
        since: int,
        until: int,
        *,
        heads: Mapping[str, Head] | None = None,
        floors: Mapping[str, int] = {},
        anomalies: bool = False,
        recorded: bool = False,
        selected: Selection = ALL,
        pace: Pace | None = None,
        refusals: CollectorOf | None = None,
    ) -> None:
        self._config, self._selected, self._pace = config, selected, pace
        self._since, self._until = since, until
        self._make = partial(
            Line,
            config,
            encoders,
            heads,
            floors,
            recorded=recorded,
            anomalies=anomalies,
            sites=selected.sites,
            refusals=refusals,
        )
        self._lines: dict[int, Line] = {}
        self._read: dict[int, int] = {}  # the last offset by partition
        self._alerts: list[Alert] = []
        self._anomalies: list[Anomaly] = []
        self.begins: dict[int, Begin] = {}  # by partition
        self.partitions: dict[str, int] = {}  # by site
        self.entries = 0
        self._newest: Entry | None = None

    def feed(self, entries: Iterable[Entry]) -> None:
        """Judges more entries; those that came before are passed over."""
        for batch in self._batches(self._new(entries)):
            for number in dict.fromkeys(entry.partition for entry in batch):
                self._judge(number, [entry for entry in batch if entry.partition == number])

    def feed_until_done(self, entries: Iterable[Entry]) -> None:
        """Judges more entries, until `done`."""
        for batch in self._batches(entries):
            if self.done:
                return
            self.feed(batch)

    @property
    def done(self) -> bool:
        """Whether no incident of the span can change any more, or come.

        Alerting then needs nothing that starts before the end of the span.
        """
        return all(floor >= self._until for line in self._lines.values() for floor in line.floors)

    def result(self) -> Rejudged:
        """Returns what was judged so far."""
        alerts = overlapping(self._config, self._alerts, self._since, self._until)
        first = min((begin.start for begin in self.begins.values()), default=self._since)
        last = first if self._newest is None else _time_of(self._newest) or first
        return Rejudged(
            alerts=alerts,
            anomalies=self._anomalies,
            entries=self.entries,
            seconds=seconds_within(self._since, self._until, first, last),
        )

    def _batches(self, entries: Iterable[Entry]) -> Iterator[list[Entry]]:
        """Groups entries, so that memory stays bounded; by their time where a speed is kept."""
        if self._pace is not None and self._pace.waits:
            yield from self._pace.batches(entries, _time_of)
            return
        for batch in _batches(entries):
            if self._pace is not None and (at := _time_of(batch[-1])) is not None:
                self._pace.reached(at)
            yield batch

    def _new(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if entry.offset > self._read.get(entry.partition, -1):
                self._read[entry.partition] = entry.offset
                self.entries += 1
                self._newest = entry
                self._begin(entry)
                if (kept := self._kept(entry)) is not None:
                    yield kept

    def _kept(self, entry: Entry) -> Entry | None:
        """What the selection leaves of an entry; bytes that are no record stay as they are."""
        if not self._selected.sources or entry.fault:
            return entry
        try:
            record = codec.decode(entry.value)
        except DecodeError:
            return entry
        kept = self._selected.kept(record)
        if kept is record or kept is None:
            return entry if kept is record else None
        return msgspec.structs.replace(entry, value=codec.encode(kept))

    def _begin(self, entry: Entry) -> None:
        self.partitions[entry.key] = entry.partition
        if entry.partition not in self.begins and (start := _time_of(entry)) is not None:
            self.begins[entry.partition] = Begin(entry.offset, start)

    def _judge(self, partition: int, entries: Sequence[Entry]) -> None:
        if partition not in self._lines:
            self._lines[partition] = self._make()
        line = self._lines[partition]
        for entry in entries:
            line.bus.publish(topics.OBSERVATIONS, entry.key, entry.value, entry.trace)
        line.run()
        self._alerts += line.alerts()
        self._anomalies += line.anomalies()


def seconds_within(since: int, until: int, first: int, last: int) -> float:
    """Returns the seconds of `[since, until)` in which something lies, of ns."""
    return max(0, min(until, last) - max(since, first)) / SECOND


def _time_of(entry: Entry) -> int | None:
    try:
        return event_start(codec.decode(entry.value))
    except DecodeError:
        return None


class Line:
    """Stages of one partition, on a bus of their own; `floors` are as in `Rejudging`.

    `sites` are those that are judged, none for all. Lines that share encoders share `locks`, one
    for each stage that uses a model.
    """

    def __init__(  # noqa: PLR0913
        self,
        config: Config,
        encoders: Encoders,
        heads: Mapping[str, Head] | None,
        floors: Mapping[str, int],
        *,
        recorded: bool,
        anomalies: bool = False,
        sites: Collection[str] = (),
        stages: Sequence[str] = JUDGES,
        refusals: CollectorOf | None = None,
        locks: Mapping[str, Lock] | None = None,
    ) -> None:
        self.bus = MemoryBus()
        self.status = Status()
        nodes = graph.nodes(
            config,
            encoders,
            self.status,
            recorded=recorded,
            stages=stages,
            judges=heads,
            lossless=True,
            judged=sites or None,
            refusals=refusals,
        )
        self._stages: list[StageAhead] = []  # in the order of the graph, as the judges after them
        self._judges: list[Runner] = []
        for node in nodes:
            if node.topic in topics.CHUNKS:
                self._stages.append(StageAhead(node, self.bus, (locks or {}).get(node.name)))
            else:
                self._judges.append(node.runner(self.bus))
        for runner in self._judges:
            if runner.topic == topics.ANOMALIES:
                _begin_at(runner, floors)
        self._alerts = self.bus.reader(topics.ALERTS, "rejudge")
        self._anomalies = self.bus.reader(topics.ANOMALIES, "rejudge") if anomalies else None

    def give(self, entries: Iterable[Published]) -> None:
        """Lets the stages that read chunks work ahead on a slice that `run` will get."""
        for stage in self._stages:
            stage.give(entries)

    def run(self, entries: Iterable[Published] = ()) -> None:
        """Runs the stages over a slice, and over all that was published on the bus before."""
        for entry in entries:
            self.bus.publish(*entry)
        self.bus.flush()
        drain([*self._stages, *self._judges])

    def close(self) -> None:
        """Ends the threads of the stages that work ahead."""
        for stage in self._stages:
            stage.close()

    def alerts(self) -> list[Alert]:
        """The revisions that were made since the last call."""
        return [record for record in _new(self._alerts) if isinstance(record, Alert)]

    def anomalies(self) -> list[Anomaly]:
        """The anomalies that were found since the last call, if they are wanted."""
        if self._anomalies is None:
            return []
        return [record for record in _new(self._anomalies) if isinstance(record, Anomaly)]

    @property
    def floors(self) -> Collection[int]:
        """From which times on alerting still needs anomalies, ns; one for each site."""
        (group,) = [runner.group for runner in self._judges if runner.topic == topics.ANOMALIES]
        return unpack(self.bus.committed(topics.ANOMALIES, group, 0).note)[1].values()


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    left = iter(entries)
    while batch := list(islice(left, PUBLISHED_AT_ONCE)):
        yield batch


def _new(reader: Reader) -> Iterator[Record]:
    """Yields the records that `reader` has not returned yet, and lets the bus forget them."""
    while polled := reader.poll(1000):
        for event in polled:
            if isinstance(event, Entry):
                yield codec.decode(event.value)
                reader.commit(0, event.offset + 1, b"")


def _begin_at(runner: Runner, floors: Mapping[str, int]) -> None:
    """Commits the floors before the first entry, as if the stage were restarted there."""
    by_hash: dict[int, int] = {}
    for site, floor in floors.items():
        number = site_hash(site)
        by_hash[number] = min(floor, by_hash.get(number, floor))
    runner.reader.commit(0, 0, pack(0, by_hash))


def rejudge(
    config: Config,
    encoders: Encoders,
    entries: Iterable[Entry],
    since: int,
    until: int,
    *,
    heads: Mapping[str, Head] | None = None,
) -> Rejudged:
    """Returns the revisions of incidents that overlap `[since, until)` (ns), and all anomalies.

    `entries` are those of observations.v1 in log order. An incident that is open at their end has
    no closing revision.
    """
    judging = Rejudging(config, encoders, since, until, heads=heads, anomalies=True)
    judging.feed(entries)
    return judging.result()
