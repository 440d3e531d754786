"""Encodes an alert as the document that subscribers get: CloudEvents 1.0, structured JSON.

The same alert gives the same bytes on every machine and at every time: keys have a fixed order,
maps are sorted, times are RFC 3339 UTC with nine fractional digits, and no value depends on the
machine.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from pipeline.types import Alert, rfc3339

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

# (texts, characters of each); the first pair that fits MAX_EVENT_BYTES is used.
_TEXTS = ((64, 2000), (32, 500), (16, 200), (8, 80), (2, 40))


def event_id(alert: Alert) -> str:
    """Returns the id of this revision: CloudEvents `id`, and `webhook-id` of all attempts."""
    return f"{alert.id}_{alert.revision}"


def event(alert: Alert) -> dict[str, Any]:
    """Returns the whole document; raises ValueError for an invalid number or time."""
    return _event(alert, None)


def event_bytes(alert: Alert) -> bytes:
    """Returns the document in UTF-8, below `MAX_EVENT_BYTES`: long texts end in `CUT_MARK`.

    Raises ValueError for an invalid number or time, or if the names alone are too long.
    """
    for texts in (None, *_TEXTS):
        body = msgspec.json.encode(_event(alert, texts))
        if len(body) < MAX_EVENT_BYTES:
            return body
    msg = f"an alert of {len(body)} bytes: labels, rules, presence, evidence and heads do not fit"
    raise ValueError(msg)


def test_event(name: str, time: int) -> tuple[str, bytes]:
    """(id, document) of a test event for a subscriber: type `fusewatch.test`, without an alert."""
    ident = f"test_{time}"
    document = {
        "specversion": "1.0",
        "id": ident,
        "source": "/fusewatch",
        "type": "fusewatch.test",
        "subject": name,
        "time": rfc3339(time),
        "datacontenttype": "application/json",
        "data": {"message": "A test by `fusewatch webhooks test`; nothing happened."},
    }
    return ident, msgspec.json.encode(document)


test_event.__test__ = False  # type: ignore[attr-defined]  # pytest collects by name


def _event(alert: Alert, texts: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id(alert),
        "source": f"/fusewatch/{quote(alert.site)}",
        "type": f"fusewatch.alert.{alert.state}",
        "subject": f"{alert.site}/{alert.label}",
        "time": rfc3339(alert.time),
        "datacontenttype": "application/json",
        "data": {
            "alert_id": alert.id,
            "revision": alert.revision,
            "state": alert.state,
            "site": alert.site,
            "label": alert.label,
            "labels": list(alert.labels),
            "rules": list(alert.rules),
            "severity": alert.severity,
            "score": _finite(alert.score),
            "start": rfc3339(alert.start),
            "end": None if alert.end is None else rfc3339(alert.end),
            "presence": {name: alert.presence[name].value for name in sorted(alert.presence)},
            "transcript": _texts(alert.transcript, texts),
            "reasons": _texts(alert.reasons, texts),
            "contributions": _numbers(alert.contributions),
            "evidence": list(alert.evidence),
            "heads": list(alert.heads),
        },
    }


def _finite(number: float) -> float:
    if not math.isfinite(number):
        msg = f"an alert with the number {number}"
        raise ValueError(msg)
    return number


def _numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: _finite(numbers[name]) for name in sorted(numbers)}


def _texts(texts: Sequence[str], limits: tuple[int, int] | None) -> list[str]:
    if limits is None:
        return list(texts)
    count, length = limits
    kept = [text if len(text) <= length else text[:length] + CUT_MARK for text in texts[:count]]
    return kept if len(texts) <= count else [*kept, f"{len(texts) - count} more{CUT_MARK}"]
