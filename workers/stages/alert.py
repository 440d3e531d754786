"""The alerting stage: folds anomalies into incidents and emits revisions of alerts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline.judge.incident import IncidentFold, Timing
from pipeline.types import FOREVER, SECOND, SYSTEM, Alert, Anomaly, Progress, Record

LONGEST = 86_400 * SECOND  # ns after which a lasting outage becomes a new incident

Evidence = Callable[[str, str, int], tuple[str, ...]]


class AlertStage:
    """Keeps incidents by site; `timings` has every site of the config.

    `evidence` returns the file names of an alert's snapshots by (site, alert id, revision).
    """

    def __init__(self, timings: Mapping[str, Timing], evidence: Evidence) -> None:
        self._timings = timings
        self._evidence = evidence

    def infer(self, batch: Sequence[Record]) -> Sequence[None]:
        """Returns None for each record: alerting has no model."""
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> AlertState:
        """Returns the state of a partition."""
        return AlertState(self._timings, self._evidence, floors)


class _Site:
    def __init__(self, timing: Timing, evidence: Evidence, floor: int) -> None:
        self.happened = IncidentFold(timing, evidence, floor)
        self.system = IncidentFold(
            Timing(close_after=timing.close_after, max_duration=LONGEST), evidence, floor
        )
        self.known: dict[str, int] = {}  # id of an anomaly -> its start, from the watermark on
        self.watermark = floor

    @property
    def floor(self) -> int:
        needs = (self.happened.needs, self.system.needs, self.watermark)
        return min(need for need in needs if need is not None)


class AlertState:
    """The open incidents of the sites on one partition."""

    def __init__(
        self, timings: Mapping[str, Timing], evidence: Evidence, floors: Mapping[str, int]
    ) -> None:
        self._timings = timings
        self._evidence = evidence
        self._floors = floors
        self._sites: dict[str, _Site] = {}

    def on(self, record: Record, inferred: object) -> Sequence[Alert]:
        """Returns the revisions that one anomaly, or fusion's Progress, causes."""
        if record.site not in self._timings:
            return ()  # the site left the config: nothing advances its watermark any more
        match record:
            case Anomaly():
                return self._anomaly(self._site(record.site), record)
            case Progress():
                return self._progress(self._site(record.site), record.upto)
            case _:
                return ()

    def floor(self, site: str) -> int:
        """The start of the oldest open incident, or the watermark if none is open. Ns.

        No new anomaly starts before the watermark of fusion. One that does is a repeat, so its id
        need not be kept.
        """
        if site not in self._timings:
            return FOREVER
        return self._sites[site].floor if site in self._sites else self._floors.get(site, 0)

    def _site(self, name: str) -> _Site:
        if name not in self._sites:
            floor = self._floors.get(name, 0)
            self._sites[name] = _Site(self._timings[name], self._evidence, floor)
        return self._sites[name]

    def _anomaly(self, site: _Site, anomaly: Anomaly) -> Sequence[Alert]:
        if anomaly.id in site.known or anomaly.start < site.watermark:
            return ()  # delivery between stages is at least once: this is a repeat
        site.known[anomaly.id] = anomaly.start
        return (site.system if anomaly.rule == SYSTEM else site.happened).on(anomaly)

    def _progress(self, site: _Site, upto: int) -> Sequence[Alert]:
        if upto <= site.watermark:
            return ()
        site.watermark = upto
        site.known = {id_: start for id_, start in site.known.items() if start >= upto}
        return [*site.happened.advance(upto), *site.system.advance(upto)]
