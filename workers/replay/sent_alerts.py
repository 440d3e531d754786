"""The alerts that were sent: which incidents overlap a span, and where judging them must begin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pipeline import codec
from pipeline.config.schema import Config, Site
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.types import SYSTEM, Alert, ns
from workers.stages.alert import OUTAGE_RETOLD_AFTER

LONGEST = OUTAGE_RETOLD_AFTER  # ns; no incident lasts longer
OUTSIDE_LABEL = "stage-failed"  # of anomalies that the process makes, not fusion


class SentIncident(msgspec.Struct, kw_only=True):
    """One incident in `alerts.v1`; times in ns.

    `opened_by` and `closed_by` are the traces of its first and its closing revision.
    """

    id: str
    site: str
    start: int
    end: int | None
    limit: int  # an incident that never closed lasts no longer
    labels: tuple[str, ...]
    first: int  # the lowest stored revision
    opened_by: str
    closed_by: str | None = None
    revisions: dict[int, Alert]  # dropped when it closes outside of the span

    def overlaps(self, since: int, until: int) -> bool:
        """Whether it overlaps `[since, until)`."""
        return self.start < until and (self.limit if self.end is None else self.end) > since


def limit_of(config: Config, alert: Alert) -> int:
    """Returns the time at which the incident of an alert ends at the latest, ns."""
    site = config.sites.get(alert.site, Site())
    longest = OUTAGE_RETOLD_AFTER if SYSTEM in alert.rules else ns(site.incidents.max_duration)
    return alert.start + longest + ns(site.windows.size)


def sent_incidents(
    config: Config, entries: Iterable[Entry], since: int, until: int
) -> dict[str, list[SentIncident]]:
    """Returns the incidents of each site of the config, in the order of `alerts.v1`.

    Incidents that closed outside of `[since, until)` are there without their revisions.
    """
    found: dict[tuple[str, str], SentIncident] = {}
    for entry in entries:
        try:
            alert = codec.decode(entry.value)
        except DecodeError:
            continue
        if not isinstance(alert, Alert) or alert.site not in config.sites:
            continue
        known = found.get((alert.site, alert.id))
        if known is None:
            known = found[alert.site, alert.id] = SentIncident(
                id=alert.id,
                site=alert.site,
                start=alert.start,
                end=None,
                limit=limit_of(config, alert),
                labels=alert.labels,
                first=alert.revision,
                opened_by=entry.trace,
                revisions={},
            )
        if alert.revision in known.revisions:
            continue  # delivery between stages is at least once
        known.revisions[alert.revision] = alert
        known.start, known.labels = min(known.start, alert.start), alert.labels
        known.limit = min(known.limit, limit_of(config, alert))
        if alert.state == "closed":
            known.end, known.closed_by = alert.end, entry.trace
            if not known.overlaps(since, until):
                known.revisions.clear()
    by_site: dict[str, list[SentIncident]] = {site: [] for site in config.sites}
    for incident in found.values():
        by_site[incident.site].append(incident)
    return by_site


class RunUp(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerting of a site must begin, so that the wanted incidents come out as they were."""

    floor: int  # ns; anomalies that start before it are ignored
    wanted: Sequence[SentIncident]  # those that overlap the span, in the order of `alerts.v1`


def run_up(site: Site, sent: Sequence[SentIncident], since: int, until: int) -> RunUp:
    """Returns the run-up for `[since, until)`, given all incidents of a site that are stored.

    An incident of which the first anomaly came while another was open opens when that one closes:
    both revisions have one cause, and so one trace. So the earlier incident is judged too, and one
    that began before the floor and lasted beyond it. Sources of a site are rarely further apart
    than its patience, so it goes no further back than that, and one incident.
    """
    wanted = [incident for incident in sent if incident.overlaps(since, until)]
    floor = min((incident.start for incident in wanted), default=since)
    floor = min(floor, since)
    earliest = floor - ns(site.windows.patience)
    judged = {incident.id for incident in wanted}
    causes = {incident.opened_by for incident in wanted}
    while floor > earliest and (before := _before(sent, judged, causes, floor)):
        judged |= {incident.id for incident in before}
        causes |= {incident.opened_by for incident in before}
        floor = min(floor, *(incident.start for incident in before))
    return RunUp(floor=floor, wanted=wanted)


def _before(
    sent: Sequence[SentIncident], judged: set[str], causes: set[str], floor: int
) -> list[SentIncident]:
    """Returns the incidents that began before the floor and must be judged too."""
    earlier = [one for one in sent if one.id not in judged and one.start < floor]
    untraced = [one for one in earlier if one.closed_by == ""] if "" in causes else []
    return [
        *(one for one in earlier if (one.closed_by in causes - {""}) or (one.end or 0) > floor),
        *sorted(untraced, key=lambda one: one.start)[-1:],  # its closing may be the cause
    ]


def overlapping(config: Config, alerts: Sequence[Alert], since: int, until: int) -> list[Alert]:
    """Returns the revisions of incidents that overlap `[since, until)` ns.

    The last revision of an incident tells.
    """
    last: Mapping[str, Alert] = {alert.id: alert for alert in alerts}
    wanted = {
        alert.id
        for alert in last.values()
        if alert.start < until
        and (limit_of(config, alert) if alert.end is None else alert.end) > since
    }
    return [alert for alert in alerts if alert.id in wanted]
