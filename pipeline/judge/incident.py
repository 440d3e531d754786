"""Folds related anomalies into incidents, in any order, and publishes them as alert revisions.

An incident is a connected stretch of time: anomalies of one site whose spans are less than
`close_after` apart. The fold (`Incident.joined`) uses only unions and maxima, so the order of
anomalies does not matter. The order matters only for *when* an alert is published:

- An anomaly within reach of the open incident joins it; without an open one, it opens one at once.
- An anomaly out of reach waits until the watermark of fusion shows whether other anomalies bridge
  the gap. If they do, it joins. If not, the old incident closes and it opens the next.
- Only the watermark closes an incident.

So the published incidents are the same whichever source came first.

A revision is published when severity, labels, rules or presence change, when something happens
again (`pipeline/judge/again.py`), and when the incident opens or closes. `Alert.changed` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from pipeline.judge import findings, refusal_words
from pipeline.judge.again import Reminder
from pipeline.judge.findings import FoldedFinding, Key, Text
from pipeline.judge.refusal import INCIDENT, Collector
from pipeline.types import SECOND, SEVERITIES, Alert, Anomaly, Presence, content_id

# site, group, alert id, revision -> names of files
EvidenceNames = Callable[[str, str, str, int], tuple[str, ...]]

_V = TypeVar("_V", float, tuple[int, float])
_MORE_TELLING = {Presence.SILENT: 0, Presence.PRESENT: 1, Presence.LOST: 2}


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When an incident ends, and what happens again in it is told; spans in ns of event time."""

    close_after: int = 10 * SECOND
    max_duration: int = 600 * SECOND
    remind: int = 30 * SECOND


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """The fold of the anomalies of one incident; `opened_by` is the id of the first to arrive."""

    site: str
    opened_by: str
    start: int
    latest: int  # the latest start of an anomaly
    end: int
    score: float
    severity: str
    labels: Mapping[str, tuple[int, float]]  # label -> (rank of severity, score)
    rules: frozenset[str]
    presence: Mapping[str, Presence]
    modalities: Mapping[str, float]  # modality -> strongest evidence, 0 to 1
    reasons: frozenset[Text]  # of the begin of each event
    texts: frozenset[Text]
    heads: frozenset[str]
    findings: Mapping[Key, FoldedFinding]
    modes: frozenset[str]

    @classmethod
    def opened(cls, anomaly: Anomaly) -> Incident:
        """Returns the incident of a single anomaly."""
        return cls(
            site=anomaly.site,
            opened_by=anomaly.id,
            start=anomaly.start,
            latest=anomaly.start,
            end=anomaly.end,
            score=anomaly.score,
            severity=anomaly.severity,
            labels={anomaly.label: (SEVERITIES.index(anomaly.severity), anomaly.score)},
            rules=frozenset((anomaly.rule,)),
            presence=dict(anomaly.presence),
            modalities={m: c * anomaly.score for m, c in anomaly.contributions.items()},
            reasons=frozenset((anomaly.start, reason) for reason in anomaly.reasons),
            texts=frozenset(((anomaly.start, anomaly.text),) if anomaly.text else ()),
            heads=frozenset((anomaly.head,) if anomaly.head else ()),
            findings=findings.finding_of(anomaly),
            modes=frozenset((anomaly.mode,) if anomaly.mode else ()),
        )

    def joined(self, other: Incident) -> Incident:
        """Returns the union of both by unions and maxima; commutative, except for `opened_by`."""
        presence = dict(self.presence)
        for source, state in other.presence.items():
            presence[source] = max(
                presence.get(source, state), state, key=_MORE_TELLING.__getitem__
            )
        return Incident(
            site=self.site,
            opened_by=self.opened_by,
            start=min(self.start, other.start),
            latest=max(self.latest, other.latest),
            end=max(self.end, other.end),
            score=max(self.score, other.score),
            severity=max(self.severity, other.severity, key=SEVERITIES.index),
            labels=_highest(self.labels, other.labels, (-1, 0.0)),
            rules=self.rules | other.rules,
            presence=presence,
            modalities=_highest(self.modalities, other.modalities, 0.0),
            reasons=findings.ends(self.reasons | other.reasons),
            texts=findings.ends(self.texts | other.texts),
            heads=self.heads | other.heads,
            findings=findings.union(self.findings, other.findings),
            modes=self.modes | other.modes,
        )

    @property
    def label(self) -> str:
        """The label with the highest severity, then the highest score, then the first by name."""
        return min(self.labels, key=lambda label: (*(-v for v in self.labels[label]), label))

    def changed(self, before: Incident) -> tuple[str, ...]:
        """What a subscriber must know: the fields in which it differs from the told state `before`.

        A new head alone is not one of them; the next revision lists it.
        """
        differs = {
            "severity": self.severity != before.severity,
            "labels": self.labels.keys() != before.labels.keys(),
            "rules": self.rules != before.rules,
            "presence": self.presence != before.presence,
        }
        return tuple(name for name, differ in differs.items() if differ)

    @property
    def all_reasons(self) -> frozenset[Text]:
        """The reasons to tell: of the begin of each event, and since when each finding stands."""
        return findings.ends(self.reasons.union(f.first for f in self.findings.values()))


def _highest(ours: Mapping[str, _V], theirs: Mapping[str, _V], least: _V) -> dict[str, _V]:
    keys = sorted({*ours, *theirs})
    return {key: max(ours.get(key, least), theirs.get(key, least)) for key in keys}


def _shares(modalities: Mapping[str, float]) -> dict[str, float]:
    """Returns each modality's share of a noisy-or; the shares sum to 1, except for rounding."""
    weights = {m: -math.log1p(-min(p, 0.999)) for m, p in sorted(modalities.items())}
    total = sum(weights.values())
    return {m: round(weight / total, 3) for m, weight in weights.items()} if total else {}


class IncidentFold:
    """The incidents of one site, kind and group: `on` adds an anomaly, `advance` a watermark.

    `floor` is that of a restart: anomalies that start before it belong to closed incidents.
    `refusals` takes why an incident was cut, and why an anomaly gave no revision.
    """

    def __init__(
        self,
        timing: Timing,
        evidence: EvidenceNames,
        floor: int = 0,
        group: str = "",
        refusals: Collector | None = None,
    ) -> None:
        self._refusals = refusals
        self._cut: Incident | None = None  # the last one that closed
        self._timing = timing
        self._evidence = evidence
        self._floor = floor
        self._group = group
        self._open: Incident | None = None
        self._waiting: list[Anomaly] = []  # out of reach of the open incident
        self._revision = 0
        # Start of the incident before, if the open one waited for its end: it opened all at once
        self._before: int | None = None
        self._newest = 0  # ns; end of the last anomaly that joined
        self._said: Incident | None = None  # the open incident at its last revision
        self._reasons: frozenset[str] = frozenset()  # that its last revision told
        self._retold: frozenset[Text] = frozenset()  # reasons of what happened again
        self._reminder = Reminder(timing.remind)
        # Earliest and latest start of the anomalies of each closed incident; the caller prunes it.
        self.closed: set[tuple[int, int]] = set()

    @property
    def needs(self) -> int | None:
        """The earliest start of an anomaly that later output may need, ns; None without one."""
        held = [*self._waiting, *((self._open,) if self._open else ())]
        starts = [each.start for each in held]
        if self._before is not None:
            starts.append(self._before)
        return min(starts, default=None)

    def on(self, anomaly: Anomaly) -> list[Alert]:
        """Returns the revisions that this anomaly causes; the caller has removed repeats."""
        if anomaly.start < self._floor:
            return []
        self._waiting.append(anomaly)
        return list(self._settle(anomaly.end))

    def advance(self, watermark: int) -> list[Alert]:
        """Returns the revisions that the watermark causes: no later anomaly starts before it."""
        alerts: list[Alert] = []
        while first := self._first():
            whole, later = self._stretch(first)
            if self._over(whole) > watermark:
                break
            if first is not self._open:  # it came late: opened and closed at once
                alerts += self._aside(whole, later, watermark)
                continue
            alerts.append(self._say("closed", ("closed",), watermark))
            self._refuse_cut(whole, min(self._waiting, key=_order, default=None), self._over(whole))
            self._cut = whole
            self.closed.add((whole.start, whole.latest))
            self._open = None
            alerts += self._settle(watermark)
            self._before = whole.start if self._open else None
        return alerts

    def _first(self) -> Incident | Anomaly | None:
        held = [*self._waiting, *((self._open,) if self._open else ())]
        return min(held, key=_order, default=None)

    def _refuse_cut(self, cut: Incident, after: Incident | Anomaly | None, start: int) -> None:
        """Says why an incident ended, and how long after it the next finding came."""
        if self._refusals is not None:
            bound = self._bound(cut)
            limit = getattr(self._timing, bound)
            gap = None if after is None else (after.label, after.start - cut.end)
            ask = partial(refusal_words.ended, self._id(cut), bound, limit, gap)
            self._refusals.refuse(INCIDENT, self._group, start, bound, ask)

    def _bound(self, of: Incident) -> str:
        """What ends an incident."""
        timing = self._timing
        lasts = of.start + timing.max_duration <= of.end + timing.close_after
        return "max_duration" if lasts else "close_after"

    def _id(self, of: Incident) -> str:
        # Under another `incidents.group` the same anomaly opens another incident.
        whose = (self._group,) if self._group else ()
        return content_id(of.site, of.opened_by, *whose)

    def _over(self, of: Incident | Anomaly) -> int:
        timing = self._timing
        return min(of.end + timing.close_after, of.start + timing.max_duration)

    def _within(self, ours: Incident, other: Anomaly) -> bool:
        if ours.start <= other.start:
            return other.start < self._over(ours)
        return ours.start < self._over(other)

    def _settle(self, time: int) -> Iterator[Alert]:
        """Joins what is within reach of the open incident; without one, the earliest opens one."""
        opens = self._open is None and bool(self._waiting)
        if opens:
            self._waiting.sort(key=_order)
            self._begin(self._waiting.pop(0))
        again, joined = False, list[Anomaly]()
        while self._open and (near := self._near(self._open)):
            self._waiting.remove(near)
            self._newest = near.end
            self._open = self._open.joined(Incident.opened(near))
            if self._reminder.again(near):
                again = True
                self._retold |= {(near.start, findings.reason_of(near))}
            if self._refusals is not None:
                joined.append(near)
        if self._open is None:
            return
        if opens and self._cut is not None:
            self._refuse_cut(self._cut, self._open, self._open.start)
        changed: tuple[str, ...] = ("opened",) if opens else ()
        if not opens and self._said is not None:
            changed = self._open.changed(self._said) + (("again",) if again else ())
        if changed:
            # A waiting anomaly may join before the watermark reaches its end.
            yield self._say("opened" if opens else "updated", changed, max(time, self._newest))
        elif self._refusals is not None:
            incident, remind = self._id(self._open), self._timing.remind
            for one in joined:
                ask = partial(refusal_words.untold, incident, one, remind)
                self._refusals.refuse(one.rule, one.source, one.start, "joined", ask)

    def _begin(self, anomaly: Anomaly) -> None:
        self._open, self._newest = Incident.opened(anomaly), anomaly.end
        self._revision, self._said = 0, None
        self._reasons, self._retold = frozenset(), frozenset()
        self._reminder = Reminder(self._timing.remind)
        self._reminder.again(anomaly)

    def _near(self, incident: Incident) -> Anomaly | None:
        return next((other for other in self._waiting if self._within(incident, other)), None)

    def _stretch(self, first: Incident | Anomaly) -> tuple[Incident, list[Anomaly]]:
        """Returns `first` joined with all waiting anomalies of its stretch, and the remaining ones.

        No waiting anomaly belongs to the open incident: such anomalies have joined already.
        """
        if isinstance(first, Incident):
            return first, self._waiting
        later = []
        one, *others = sorted(self._waiting, key=_order)
        whole = Incident.opened(one)
        for other in others:
            if self._within(whole, other):
                whole = whole.joined(Incident.opened(other))
            else:
                later.append(other)
        return whole, later

    def _aside(self, whole: Incident, later: list[Anomaly], watermark: int) -> list[Alert]:
        """Opens and closes an incident that lies wholly before the open one."""
        aside = IncidentFold(self._timing, self._evidence, group=self._group)
        aside._open = whole
        self._waiting = later
        self.closed.add((whole.start, whole.latest))
        opened = aside._say("opened", ("opened",), whole.end)
        return [opened, aside._say("closed", ("closed",), watermark)]

    def _say(self, state: str, changed: tuple[str, ...], time: int) -> Alert:
        incident = self._open
        if incident is None:
            msg = "only an open incident can be told"
            raise AssertionError(msg)
        self._said = incident
        self._reminder.revised()
        self._retold = findings.ends(self._retold)
        alert_id = self._id(incident)
        revision, self._revision = self._revision, self._revision + 1
        before, reasons = self._reasons, findings.lines(incident.all_reasons | self._retold)
        self._reasons = frozenset(reasons)
        told = findings.told(incident.findings)
        # A closing alert shows nothing new: it has the pictures of the opening.
        pictures = 0 if state == "closed" else revision
        return Alert(
            site=incident.site,
            source="alert",
            id=alert_id,
            revision=revision,
            state=state,
            time=time,
            label=incident.label,
            labels=tuple(sorted(incident.labels)),
            rules=tuple(sorted(incident.rules)),
            severity=incident.severity,
            score=incident.score,
            start=incident.start,
            end=incident.end if state == "closed" else None,
            presence=dict(sorted(incident.presence.items())),
            transcript=findings.lines(incident.texts),
            reasons=reasons,
            contributions=_shares(incident.modalities),
            evidence=self._evidence(incident.site, self._group, alert_id, pictures),
            heads=tuple(sorted(incident.heads)),
            changed=changed,
            findings=told,
            findings_cut=len(incident.findings) - len(told),
            reasons_new=tuple(reason for reason in reasons if reason not in before),
            group=self._group,
            modes=tuple(sorted(incident.modes)),
        )


def _order(of: Incident | Anomaly) -> tuple[int, str]:
    return of.start, of.opened_by if isinstance(of, Incident) else of.id
