"""Compares what was judged again with what was sent, and what judges now with what judged then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from pipeline.config.judging import Difference, differences
from pipeline.config.schema import Config
from pipeline.types import Alert, SiteConfig, ns, rfc3339
from workers.bus.site_configs import in_force
from workers.replay.diff import Incident, incidents, of_alert, revision_changes
from workers.replay.diff_fields import TOLD, Allowance, cut
from workers.replay.observation_replay import Begin
from workers.replay.sent_alerts import OUTSIDE_LABEL, RunUp, SentIncident

MAX_LINES = 20  # differences that the text names; the rest is counted
EXACT = Allowance()


class AlertDifference(msgspec.Struct, frozen=True, kw_only=True):
    """An incident that was sent in another way: `added`, `gone` or `changed` now.

    `revision` and `field` are the first that differ; `sent` and `judged` are the values.
    """

    id: str
    site: str
    what: str
    revision: int = 0
    field: str = ""
    sent: str = ""
    judged: str = ""

    def __str__(self) -> str:
        match self.what:
            case "added":
                return f"{self.id} ({self.site}) was not sent"
            case "gone":
                return f"{self.id} ({self.site}) was sent, and is not judged so again"
        place = f"{self.id} ({self.site}), revision {self.revision}"
        if not self.field:
            return f"{place}: was {self.sent}, is {self.judged}"
        return f"{place}: {self.field} was {cut(self.sent)}, is {cut(self.judged)}"


class Unsure(msgspec.Struct, frozen=True, kw_only=True):
    """An incident that was sent and cannot be reproduced for certain, and why."""

    id: str
    site: str
    why: str

    def __str__(self) -> str:
        return f"{self.id} ({self.site}) cannot be reproduced for certain: {self.why}"


class ConfigChange(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that judged a site from `since` on, and is another one now."""

    since: str
    path: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.path} was {cut(self.was)}, is {cut(self.now)} (since {self.since})"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What the command says beside the alerts."""

    sent_incidents: int
    sent_revisions: int
    differs: Sequence[AlertDifference]
    not_replayed: Sequence[str]  # ids of incidents with a failed stage, which fusion does not judge
    unsure: Sequence[Unsure]
    config: Sequence[ConfigChange]
    config_unknown: Sequence[str]  # sites of which it is not known what judged them
    last_only: bool = False  # the last revisions are compared, by what they tell

    def lines(self) -> Iterator[str]:
        """Yields the lines of a summary for a person."""
        count = f"{self.sent_revisions} revisions of {self.sent_incidents} incidents"
        if self.last_only:
            count = f"last revisions of {self.sent_incidents} incidents"
        if self.differs:
            yield f"differs from the {count} that were sent:"
            yield from _listed(self.differs)
        elif self.sent_revisions:
            yield f"{count}, the same as sent"
        else:
            yield "nothing was sent, or it is no longer stored"
        yield from _listed(self.unsure)
        for id_ in self.not_replayed:
            yield f"  {id_} tells of a failed stage, and is not judged again"
        if self.config:
            yield "what judges is not what it was:"
            yield from _listed(self.config)
        for site in self.config_unknown:
            yield f"  what judged sites.{site} then is not known: the log has no record of it"


def _listed(found: Sequence[object]) -> Iterator[str]:
    yield from (f"  {each}" for each in found[:MAX_LINES])
    if len(found) > MAX_LINES:
        yield f"  and {len(found) - MAX_LINES} more; --json names all of them"


def compared(sent: Sequence[SentIncident], judged: Sequence[Alert]) -> list[AlertDifference]:
    """Returns how what was judged differs from what was sent, one row an incident.

    Revisions of which the older ones are no longer stored are compared from the oldest one on.
    """
    again = {(one.site, one.id): one for one in incidents(map(of_alert, judged))}
    found = []
    for incident in sent:
        ours = again.pop((incident.site, incident.id), None)
        if ours is None:
            found.append(AlertDifference(id=incident.id, site=incident.site, what="gone"))
        elif (changed := _changed(incident, ours)) is not None:
            found.append(changed)
    found += [AlertDifference(id=id_, site=site, what="added") for site, id_ in again]
    return found


def compared_last(sent: Sequence[SentIncident], judged: Sequence[Alert]) -> list[AlertDifference]:
    """Returns how the last revisions differ in what they tell (`TOLD`), one row an incident.

    Their ids may differ, as an incident has its id from the finding that opened it.
    """
    ours = {(alert.site, alert.id): alert for alert in judged}
    theirs = {
        (one.site, one.id): one.revisions[max(one.revisions)] for one in sent if one.revisions
    }
    for key in [key for key in theirs if key in ours and _told(theirs[key]) == _told(ours[key])]:
        del theirs[key], ours[key]
    for key, was in list(theirs.items()):
        same = [each for each, now in ours.items() if _told(now) == _told(was)]
        if same:
            del theirs[key], ours[same[0]]
    found = []
    for (site, id_), was in theirs.items():
        now = ours.pop((site, id_), None)
        row = AlertDifference(id=id_, site=site, what="gone")
        if now is not None:
            name = next(name for name in TOLD if getattr(was, name) != getattr(now, name))
            values = [_value(name, getattr(of, name)) for of in (was, now)]
            row = AlertDifference(
                id=id_,
                site=site,
                what="changed",
                revision=now.revision,
                field=name,
                sent=values[0],
                judged=values[1],
            )
        found.append(row)
    return found + [AlertDifference(id=id_, site=site, what="added") for site, id_ in ours]


def _told(alert: Alert) -> tuple[object, ...]:
    return tuple(getattr(alert, name) for name in TOLD)


def _value(name: str, value: object) -> str:
    """The JSON of a field of an alert; times are as in the files of alerts."""
    if name in ("start", "end") and isinstance(value, int):
        value = rfc3339(value)
    return msgspec.json.encode(value).decode()


def _changed(incident: SentIncident, judged: Incident) -> AlertDifference | None:
    """The first field that differs of the first revision that does."""
    (sent,) = incidents(map(of_alert, incident.revisions.values()))
    for number, changes in revision_changes(sent, judged, incident.first, EXACT):
        row = AlertDifference(id=incident.id, site=incident.site, what="changed", revision=number)
        change = changes[0]
        if number not in sent.revisions or number not in judged.revisions:
            states = [str(state or "none") for state in (change.before, change.after)]
            return msgspec.structs.replace(row, sent=states[0], judged=states[1])
        values = [msgspec.json.encode(of).decode() for of in (change.before, change.after)]
        return msgspec.structs.replace(row, field=change.field, sent=values[0], judged=values[1])
    return None


def unsure(
    config: Config,
    run_ups: Mapping[str, RunUp],
    begins: Mapping[int, Begin],
    partitions: Mapping[str, int],
    oldest: Mapping[int, int],
) -> list[Unsure]:
    """Returns the incidents whose run-up is not stored any more.

    `begins` are the first entries that were read, `partitions` those of the sites, `oldest` the
    offsets of the oldest entries that are stored.
    """
    found = []
    for site, run in run_ups.items():
        windows = config.sites[site].windows
        at = partitions.get(site)
        begin = begins.get(at) if at is not None else None
        whole = begin and (begin.offset == 0 or begin.offset > oldest.get(at or 0, 0))
        for incident in run.wanted:
            needs = min(incident.start, run.floor) - ns(windows.horizon + windows.size)
            if incident.first > 0:
                why = f"its revisions before {incident.first} are no longer stored"
            elif begin is None:
                why = "nothing that was observed at its time is stored any more"
            elif not whole and begin.start > needs:
                why = (
                    f"it needs what was observed from {_at(needs)} on, and the log begins at "
                    f"{_at(begin.start)}"
                )
            else:
                continue
            found.append(Unsure(id=incident.id, site=site, why=why))
    return found


def config_changes(
    then: Sequence[SiteConfig],
    now: Sequence[SiteConfig],
    begins: Mapping[str, int],
    since: int,
    until: int,
) -> tuple[list[ConfigChange], list[str]]:
    """Returns what judged the sites in `[since, until)` and is different now, and sites of which
    that is not known from the begin of their first incident (ns, by site) on."""
    found: list[ConfigChange] = []
    unknown = []
    gone = {config.site for config in then} - {config.site for config in now}
    for site in sorted(gone):
        if known := in_force(then, site, since, until):
            path = f"sites.{site}"
            found.append(
                ConfigChange(since=_at(known[0].start), path=path, was="there", now="gone")
            )
    for present in now:
        known = in_force(then, present.site, since, until)
        begin = begins.get(present.site)
        if begin is not None and (not known or known[0].start > max(begin, since)):
            unknown.append(present.site)
        for before in known:
            found += [_change(before, each) for each in differences(before, present)]
    return found, unknown


def _change(config: SiteConfig, each: Difference) -> ConfigChange:
    return ConfigChange(since=_at(config.start), path=each.path, was=each.was, now=each.now)


def _at(time: int) -> str:
    return f"{rfc3339(time)[:19]}Z"


def outside(sent: Iterable[SentIncident]) -> list[str]:
    """Returns the ids of the incidents with anomalies that the process made, not fusion."""
    return [incident.id for incident in sent if OUTSIDE_LABEL in incident.labels]
