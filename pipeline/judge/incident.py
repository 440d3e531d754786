"""Folds related anomalies into incidents, in any order, and publishes them as alert revisions.

An incident is a connected stretch of time: anomalies of one site whose spans are less than
`close_after` apart. The fold (`Incident.joined`) uses only unions and maxima, so the order of
anomalies does not matter. The order matters only for *when* an alert is published:

- An anomaly within reach of the open incident joins it; without an open one, it opens one at once.
- An anomaly out of reach waits until the watermark of fusion shows whether other anomalies bridge
  the gap. If they do, it joins. If not, the old incident closes and it opens the next.
- Only the watermark closes an incident.

So the published incidents are the same whichever source came first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import msgspec

from pipeline.config.fields import SEVERITIES
from pipeline.types import SECOND, Alert, Anomaly, Presence, content_id

MAX_TEXTS = 20  # limit of an alert's reasons and transcript lines; the earliest are kept

Evidence = Callable[[str, str, int], tuple[str, ...]]  # site, alert id, revision -> names

_V = TypeVar("_V", float, tuple[int, float])
_MORE_TELLING = {Presence.SILENT: 0, Presence.PRESENT: 1, Presence.LOST: 2}


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When an incident ends; spans in ns of event time."""

    close_after: int = 10 * SECOND
    max_duration: int = 600 * SECOND


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """The fold of the anomalies of one incident; `opened_by` is the id of the first to arrive."""

    site: str
    opened_by: str
    start: int
    end: int
    score: float
    severity: str
    labels: Mapping[str, tuple[int, float]]  # label -> (rank of severity, score)
    rules: frozenset[str]
    presence: Mapping[str, Presence]
    modalities: Mapping[str, float]  # modality -> strongest evidence, 0 to 1
    reasons: frozenset[tuple[int, str]]
    texts: frozenset[tuple[int, str]]
    heads: frozenset[str]

    @classmethod
    def opened(cls, anomaly: Anomaly) -> Incident:
        """Returns the incident of a single anomaly."""
        return cls(
            site=anomaly.site,
            opened_by=anomaly.id,
            start=anomaly.start,
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
            end=max(self.end, other.end),
            score=max(self.score, other.score),
            severity=max(self.severity, other.severity, key=SEVERITIES.index),
            labels=_highest(self.labels, other.labels, (-1, 0.0)),
            rules=self.rules | other.rules,
            presence=presence,
            modalities=_highest(self.modalities, other.modalities, 0.0),
            reasons=_earliest(self.reasons | other.reasons),
            texts=_earliest(self.texts | other.texts),
            heads=self.heads | other.heads,
        )

    @property
    def label(self) -> str:
        """The label with the highest severity, then the highest score, then the first by name."""
        return min(self.labels, key=lambda label: (*(-v for v in self.labels[label]), label))

    def told(self) -> tuple[object, ...]:
        """Returns what a subscriber must know: a change of it sends a revision.

        A new head alone sends none; the next revision lists it.
        """
        return self.severity, frozenset(self.labels), self.rules, dict(self.presence)


def _highest(ours: Mapping[str, _V], theirs: Mapping[str, _V], least: _V) -> dict[str, _V]:
    keys = sorted({*ours, *theirs})
    return {key: max(ours.get(key, least), theirs.get(key, least)) for key in keys}


def _earliest(texts: frozenset[tuple[int, str]]) -> frozenset[tuple[int, str]]:
    return texts if len(texts) <= MAX_TEXTS else frozenset(sorted(texts)[:MAX_TEXTS])


def _shares(modalities: Mapping[str, float]) -> dict[str, float]:
    """Returns each modality's share of a noisy-or; the shares sum to 1, except for rounding."""
    weights = {m: -math.log1p(-min(p, 0.999)) for m, p in sorted(modalities.items())}
    total = sum(weights.values())
    return {m: round(weight / total, 3) for m, weight in weights.items()} if total else {}


class IncidentFold:
    """The incidents of one site and kind: `on` adds an anomaly, `advance` applies the watermark.

    `floor` is that of a restart: anomalies that start before it belong to closed incidents.
    """

    def __init__(self, timing: Timing, evidence: Evidence, floor: int = 0) -> None:
        self._timing = timing
        self._evidence = evidence
        self._floor = floor
        self._open: Incident | None = None
        self._waiting: list[Incident] = []  # each of one anomaly, out of reach of the open one
        self._revision = 0
        self._newest = 0  # ns; end of the last anomaly that joined
        self._said: tuple[object, ...] = ()

    @property
    def needs(self) -> int | None:
        """The earliest start of an anomaly that later output may need, ns; None without one."""
        held = [*self._waiting, *((self._open,) if self._open else ())]
        return min((incident.start for incident in held), default=None)

    def on(self, anomaly: Anomaly) -> list[Alert]:
        """Returns the revisions that this anomaly causes; the caller has removed repeats."""
        if anomaly.start < self._floor:
            return []
        self._waiting.append(Incident.opened(anomaly))
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
            alerts.append(self._say("closed", watermark))
            self._open, self._revision = None, 0
            alerts += self._settle(watermark)
        return alerts

    def _first(self) -> Incident | None:
        held = [*self._waiting, *((self._open,) if self._open else ())]
        return min(held, key=lambda i: (i.start, i.opened_by), default=None)

    def _over(self, incident: Incident) -> int:
        timing = self._timing
        return min(incident.end + timing.close_after, incident.start + timing.max_duration)

    def _within(self, ours: Incident, other: Incident) -> bool:
        first, second = sorted((ours, other), key=lambda i: i.start)
        return second.start < self._over(first)

    def _settle(self, time: int) -> Iterator[Alert]:
        """Joins what is within reach of the open incident; without one, the earliest opens one."""
        before = self._open
        if self._open is None and self._waiting:
            self._waiting.sort(key=lambda i: (i.start, i.opened_by))
            self._open = self._waiting.pop(0)
            self._newest = self._open.end
        while self._open and (near := self._near(self._open)):
            self._waiting.remove(near)
            self._newest = near.end
            self._open = self._open.joined(near)
        if self._open and (before is None or self._open.told() != self._said):
            # A waiting anomaly may join before the watermark reaches its end.
            yield self._say("updated" if before else "opened", max(time, self._newest))

    def _near(self, incident: Incident) -> Incident | None:
        return next((other for other in self._waiting if self._within(incident, other)), None)

    def _stretch(self, first: Incident) -> tuple[Incident, list[Incident]]:
        """Returns `first` joined with all waiting anomalies of its stretch, and the remaining ones.

        No waiting anomaly belongs to the open incident: such anomalies have joined already.
        """
        if first is self._open:
            return first, self._waiting
        later = []
        whole, *others = sorted(self._waiting, key=lambda i: (i.start, i.opened_by))
        for other in others:
            if self._within(whole, other):
                whole = whole.joined(other)
            else:
                later.append(other)
        return whole, later

    def _aside(self, whole: Incident, later: list[Incident], watermark: int) -> list[Alert]:
        """Opens and closes an incident that lies wholly before the open one."""
        kept = self._open, self._revision, self._said
        self._open, self._revision, self._said = whole, 0, ()
        alerts = [self._say("opened", whole.end), self._say("closed", watermark)]
        self._open, self._revision, self._said = kept
        self._waiting = later
        return alerts

    def _say(self, state: str, time: int) -> Alert:
        incident = self._open
        if incident is None:
            msg = "only an open incident can be told"
            raise AssertionError(msg)
        self._said = incident.told()
        alert_id = content_id(incident.site, incident.opened_by)
        revision, self._revision = self._revision, self._revision + 1
        reasons = sorted(incident.reasons)
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
            transcript=tuple(text for _, text in sorted(incident.texts)),
            reasons=tuple(dict.fromkeys(reason for _, reason in reasons)),
            contributions=_shares(incident.modalities),
            # A closing alert shows nothing new: it has the pictures of the opening.
            evidence=self._evidence(incident.site, alert_id, 0 if state == "closed" else revision),
            heads=tuple(sorted(incident.heads)),
        )
