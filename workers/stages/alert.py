"""The alerting stage: folds anomalies into incidents and emits revisions of alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pipeline.judge.findings import kind_of
from pipeline.judge.incident import EvidenceNames, IncidentFold, Timing
from pipeline.judge.refusal import Collector, CollectorOf
from pipeline.types import FOREVER, SECOND, SYSTEM, Alert, Anomaly, Progress, Record

OUTAGE_RETOLD_AFTER = 86_400 * SECOND  # ns after which a lasting outage becomes a new incident


class SiteIncidents(msgspec.Struct, frozen=True):
    """How the incidents of a site are kept: one for all its sources, or one for each."""

    timing: Timing
    by_source: bool = False


class AlertStage:
    """Keeps incidents by site; `sites` has every site of the config.

    `evidence` returns the file names of an alert's snapshots by (site, group, alert id, revision).
    What stood in the way of a revision goes to the collectors `refusals`.
    """

    def __init__(
        self,
        sites: Mapping[str, SiteIncidents],
        evidence: EvidenceNames,
        refusals: CollectorOf = lambda site: None,
    ) -> None:
        self._plans = sites
        self._evidence = evidence
        self._refusals = refusals

    def infer(self, batch: Sequence[Record]) -> Sequence[None]:
        """Returns None for each record: alerting has no model."""
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> AlertState:
        """Returns the state of a partition."""
        return AlertState(self._plans, self._evidence, floors, self._refusals)


def group_of(anomaly: Anomaly) -> str:
    """The source that an anomaly is about; empty for a report and for the whole site.

    A microphone's sound and speech are one source.
    """
    whole = kind_of(anomaly) in ("learned", "report")
    return "" if whole else anomaly.source.partition("/")[0]


class _Site:
    def __init__(
        self, plan: SiteIncidents, evidence: EvidenceNames, floor: int, refusals: Collector | None
    ) -> None:
        self._plan, self._evidence, self._begun = plan, evidence, floor
        self._refusals = refusals
        self._folds: dict[tuple[bool, str], IncidentFold] = {}  # (is a lost source, group) -> fold
        self.known: dict[str, int] = {}  # id of an anomaly -> its start, from the watermark on
        self.watermark = floor

    @property
    def floor(self) -> int:
        """The start of the oldest open incident, or the watermark; within no closed incident. Ns.

        A restart from within a closed one would take its rest for an incident of its own, which
        `max_duration` might cut at another time: all incidents after it would have other ids.
        """
        floor = min(self._needs, default=self.watermark)
        floor = min(floor, self.watermark)
        while within := [s for f in self._folds.values() for s in f.closed if s[0] < floor <= s[1]]:
            floor = min(start for start, _ in within)
        return floor

    @property
    def _needs(self) -> list[int]:
        needs = [fold.needs for fold in self._folds.values()]
        return [need for need in needs if need is not None]

    def _forget_closed(self) -> None:
        """Keeps only those closed incidents within which a floor may still lie."""
        spans = {span for fold in self._folds.values() for span in fold.closed}
        kept: set[tuple[int, int]] = set()
        floors = set(self._needs)  # later ones do not lie before the watermark
        while more := {
            span
            for span in spans - kept
            if span[1] >= self.watermark or any(span[0] < floor <= span[1] for floor in floors)
        }:
            kept |= more
            floors |= {start for start, _ in more}
        for fold in self._folds.values():
            fold.closed &= kept

    def on(self, anomaly: Anomaly) -> list[Alert]:
        """Returns the revisions that an anomaly causes."""
        timing, system = self._plan.timing, anomaly.rule == SYSTEM
        which = system, group_of(anomaly) if self._plan.by_source else ""
        if which not in self._folds:
            if system:
                timing = msgspec.structs.replace(timing, max_duration=OUTAGE_RETOLD_AFTER)
            self._folds[which] = IncidentFold(
                timing, self._evidence, self._begun, which[1], self._refusals
            )
        return self._folds[which].on(anomaly)

    def advance(self, upto: int) -> list[Alert]:
        """Returns the revisions that a watermark causes, in an order that a restart repeats."""
        alerts = [a for which in sorted(self._folds) for a in self._folds[which].advance(upto)]
        if alerts:  # an incident has closed
            self._forget_closed()
        return alerts


class AlertState:
    """The open incidents of the sites on one partition."""

    def __init__(
        self,
        sites: Mapping[str, SiteIncidents],
        evidence: EvidenceNames,
        floors: Mapping[str, int],
        refusals: CollectorOf,
    ) -> None:
        self._refusals = refusals
        self._plans = sites
        self._evidence = evidence
        self._floors = floors
        self._sites: dict[str, _Site] = {}

    def on(self, record: Record, inferred: object) -> Sequence[Alert]:
        """Returns the revisions that one anomaly, or fusion's Progress, causes."""
        if record.site not in self._plans:
            return ()  # the site left the config: nothing advances its watermark any more
        match record:
            case Anomaly():
                return self._anomaly(self._site(record.site), record)
            case Progress():
                return self._progress(self._site(record.site), record.upto)
            case _:
                return ()

    def floor(self, site: str) -> int:
        """The time from which a restart needs anomalies, ns.

        No new anomaly starts before the watermark of fusion. One that does is a repeat, so its id
        need not be kept.
        """
        if site not in self._plans:
            return FOREVER
        return self._sites[site].floor if site in self._sites else self._floors.get(site, 0)

    def _site(self, name: str) -> _Site:
        if name not in self._sites:
            floor = self._floors.get(name, 0)
            plan, refusals = self._plans[name], self._refusals(name)
            self._sites[name] = _Site(plan, self._evidence, floor, refusals)
        return self._sites[name]

    def _anomaly(self, site: _Site, anomaly: Anomaly) -> Sequence[Alert]:
        if anomaly.id in site.known or anomaly.start < site.watermark:
            return ()  # delivery between stages is at least once: this is a repeat
        site.known[anomaly.id] = anomaly.start
        return site.on(anomaly)

    def _progress(self, site: _Site, upto: int) -> Sequence[Alert]:
        if upto <= site.watermark:
            return ()
        site.watermark = upto
        site.known = {id_: start for id_, start in site.known.items() if start >= upto}
        return site.advance(upto)
