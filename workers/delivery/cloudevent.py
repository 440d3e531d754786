"""Encodes an alert as the document that subscribers get: CloudEvents 1.0, structured JSON.

The same alert gives the same bytes on every machine and at every time: keys have a fixed order,
maps are sorted, times are RFC 3339 UTC with nine fractional digits, and no value depends on the
machine. `workers/delivery/alert_document.py` has the types of the document.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from pipeline.types import Alert, Finding, rfc3339
from workers.delivery.alert_document import AlertData, AlertEvent, FindingData, TestData, TestEvent

__all__ = (
    "CONTENT_TYPE",
    "MAX_EVENT_BYTES",
    "event",
    "event_bytes",
    "event_id",
    "rfc3339",
    "test_event",
)

CONTENT_TYPE = "application/cloudevents+json"
MAX_EVENT_BYTES = 20_000  # exclusive; Standard Webhooks: "payloads should be smaller than 20kb"
CUT_MARK = " …[cut]"


class Room(NamedTuple):
    """How much of an alert is told; `data.cut` counts what is left out, except for texts."""

    texts: int  # of the reasons, the new ones and the transcript, each
    characters: int  # of a text
    findings: int
    names: int  # of labels, rules, presence, evidence and heads, each


_encoder = msgspec.json.Encoder()
ALL = Room(10**6, 10**6, 10**6, 10**6)
# The first that fits MAX_EVENT_BYTES is used.
_ROOMS = (
    ALL,
    Room(20, 2000, 32, 400),
    Room(20, 400, 32, 400),
    Room(20, 120, 32, 100),
    Room(12, 100, 32, 64),
    Room(8, 80, 32, 32),
    Room(8, 80, 20, 64),
    Room(8, 80, 20, 32),
    Room(8, 80, 12, 20),
    Room(4, 60, 4, 10),
    Room(2, 40, 1, 2),
)


def event_id(alert: Alert) -> str:
    """Returns the id of this revision: CloudEvents `id`, and `webhook-id` of all attempts."""
    return f"{alert.id}_{alert.revision}"


def event(alert: Alert) -> dict[str, Any]:
    """Returns the whole document; raises ValueError for an invalid number or time."""
    whole: dict[str, Any] = msgspec.to_builtins(_event(alert, ALL))
    return whole


def event_bytes(alert: Alert) -> bytes:
    """Returns the document in UTF-8, below `MAX_EVENT_BYTES`: long texts end in `CUT_MARK`.

    Raises ValueError for an invalid number or time, or for a name that no config can have.
    """
    for room in _ROOMS:
        body = _encoder.encode(_event(alert, room))
        if len(body) < MAX_EVENT_BYTES:
            return body
    msg = f"an alert of {len(body)} bytes: a name in it is too long"
    raise ValueError(msg)


def test_event(name: str, time: int) -> tuple[str, bytes]:
    """(id, document) of a test event for a subscriber: type `fusewatch.test`, without an alert."""
    ident = f"test_{time}"
    document = TestEvent(
        specversion="1.0",
        id=ident,
        source="/fusewatch",
        type="fusewatch.test",
        subject=name,
        time=rfc3339(time),
        datacontenttype="application/json",
        data=TestData(message="A test by `fusewatch webhooks test`; nothing happened."),
    )
    return ident, _encoder.encode(document)


test_event.__test__ = False  # type: ignore[attr-defined]  # pytest collects by name


def _event(alert: Alert, room: Room) -> AlertEvent:
    cut: dict[str, int] = {}

    def some(what: str, values: Sequence[str], first: Iterable[str] = ()) -> list[str]:
        """As many values as there is room for, in their order; `first` are those to keep."""
        wanted = dict.fromkeys((*(v for v in first if v in values), *values))
        kept = set(list(wanted)[: room.names])
        if len(kept) < len(wanted):
            cut[what] = len(wanted) - len(kept)
        return [value for value in values if value in kept]

    told = alert.findings[: room.findings]
    if missing := len(alert.findings) - len(told) + alert.findings_cut:
        cut["findings"] = missing
    pictures = {f"_{finding.source}.jpg" for finding in told}
    found = {finding.source for finding in told}
    by_loss = sorted(
        alert.presence, key=lambda name: (name not in found, alert.presence[name] != "lost", name)
    )
    shown = [name for name in alert.evidence if name[name.rfind("_") :] in pictures]
    data = AlertData(
        alert_id=alert.id,
        revision=alert.revision,
        state=alert.state,
        changed=list(alert.changed),
        site=alert.site,
        group=alert.group,
        label=alert.label,
        labels=some("labels", alert.labels, (alert.label, *(f.label for f in alert.findings))),
        rules=some("rules", alert.rules),
        severity=alert.severity,
        score=_finite(alert.score),
        start=rfc3339(alert.start),
        end=None if alert.end is None else rfc3339(alert.end),
        modes=some("modes", alert.modes),
        presence={
            name: alert.presence[name].value
            for name in some("presence", sorted(alert.presence), by_loss)
        },
        findings=[_finding(finding) for finding in told],
        transcript=_texts(alert.transcript, room),
        reasons=_texts(alert.reasons, room),
        reasons_new=_texts(alert.reasons_new, room),
        contributions=_numbers(alert.contributions),
        evidence=some("evidence", alert.evidence, shown),
        heads=some("heads", alert.heads),
        cut=cut,
    )
    return AlertEvent(
        specversion="1.0",
        id=event_id(alert),
        source=f"/fusewatch/{quote(alert.site)}",
        type=f"fusewatch.alert.{alert.state}",
        subject=f"{alert.site}/{alert.label}",
        time=rfc3339(alert.time),
        datacontenttype="application/json",
        data=data,
    )


def _finding(finding: Finding) -> FindingData:
    return FindingData(
        source=finding.source,
        kind=finding.kind,
        label=finding.label,
        zone=finding.zone or None,
        line=finding.line or None,
        object=finding.object or None,
        score=_finite(finding.score),
        start=rfc3339(finding.start),
        end=rfc3339(finding.end),
        count=finding.count,
        box=None if finding.box is None else [_finite(corner) for corner in finding.box],
        at=rfc3339(finding.at),
    )


def _finite(number: float) -> float:
    if not math.isfinite(number):
        msg = f"an alert with the number {number}"
        raise ValueError(msg)
    return number


def _numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: _finite(numbers[name]) for name in sorted(numbers)}


def _texts(texts: Sequence[str], room: Room) -> list[str]:
    """The first and the newest texts; a line between them says how many are left out."""
    count, length = room.texts, room.characters
    kept = [text if len(text) <= length else text[:length] + CUT_MARK for text in texts]
    if len(kept) <= count:
        return kept
    first = count * 2 // 5
    missing = f"{len(texts) - count} more{CUT_MARK}"
    return [*kept[:first], missing, *kept[len(kept) - count + first :]]
