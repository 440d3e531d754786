"""Tells an explanation as values for JSON; times are RFC 3339 in UTC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.judge.refusal import Refusal
from pipeline.types import SECOND, Alert, rfc3339
from workers.explain.explained import Explained
from workers.explain.refusals import (
    cuts,
    fired_seconds,
    first_of,
    near_misses,
    seconds_by_reason,
)
from workers.explain.text import AROUND, causes_around


def document(
    of: Explained, *, at: int | None = None, revisions: Sequence[Alert] = ()
) -> dict[str, Any]:
    """The whole explanation of a site; with `at` (ns) or an incident's revisions, their part."""
    start, end = of.start, of.end
    if at is not None:
        start, end = max(start, at - AROUND), min(end, at + AROUND)
    elif revisions:
        last = revisions[-1]
        start, end = last.start - AROUND, (last.end or of.end) + AROUND
    fired = fired_seconds(of.anomalies)
    found: dict[str, Any] = {
        "input": of.name,
        "site": of.site,
        "timezone": of.settings.timezone,
        "start": rfc3339(start),
        "end": rfc3339(end),
        "rules": list(of.rules),
        "incidents": [_incident(of, alert) for alert in of.last.values()],
        "near": [
            {"start": rfc3339(each.start), "end": rfc3339(each.end), **_refusal(each.best)}
            for each in near_misses(of.refusals, fired)
            if each.start < end and each.end > start
        ],
        "seconds": list(_seconds(of, start, end)),
        "reasons": {rule: dict(n) for rule, n in seconds_by_reason(of.refusals, fired).items()},
        "left_out": dict(of.left_out),
        "notes": list(of.notes),
    }
    if at is not None:
        near, far = causes_around(of, at)
        found["at"] = rfc3339(at)
        found["causes"] = [_refusal(one) for one in (*near, *far)]
    if revisions:
        last = revisions[-1]
        found["incidents"] = [_incident(of, last)]
        found["closing"] = [_refusal(one) for one in cuts(of.refusals, last.id)]
        found["revisions"] = [
            {
                "revision": alert.revision,
                "state": alert.state,
                "time": rfc3339(alert.time),
                "changed": list(alert.changed),
                "reasons_new": list(alert.reasons_new),
            }
            for alert in revisions
        ]
    return found


def _seconds(of: Explained, start: int, end: int) -> Iterable[dict[str, Any]]:
    """The best score and the first cause of each rule, source and second."""
    rows: dict[tuple[int, str, str], dict[str, Any]] = {}
    for (rule, source, second), refusals in of.refusals.kept.items():
        if start <= second * SECOND < end and (first := first_of(refusals.values())) is not None:
            rows[second, rule, source] = {"fired": False, **_refusal(first)}
    for one in of.anomalies:
        if start <= one.start < end:
            key = one.start // SECOND, one.rule, one.source
            before = rows.get(key, {})
            score = max(one.score, before.get("score") or 0.0) if before.get("fired") else one.score
            rows[key] = {
                "fired": True,
                "rule": one.rule,
                "source": one.source,
                "start": rfc3339(one.start),
                "label": one.label,
                "score": score,
                "why": one.what,
            }
    return (rows[key] for key in sorted(rows))


def _refusal(one: Refusal) -> dict[str, Any]:
    return {
        "rule": one.rule,
        "source": one.source,
        "at": rfc3339(one.start),
        "reason": one.reason,
        "score": one.score,
        "threshold": one.threshold,
        "why": one.why,
        "label": one.label,
        "near": one.near,
        "share": round(one.share, 3),
    }


def _incident(of: Explained, alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "state": alert.state,
        "labels": list(alert.labels),
        "rules": list(alert.rules),
        "severity": alert.severity,
        "score": alert.score,
        "start": rfc3339(alert.start),
        "end": None if alert.end is None else rfc3339(alert.end),
        "reasons": list(alert.reasons),
        "transcript": list(alert.transcript),
        "contributions": dict(alert.contributions),
        "revisions": sum(each.id == alert.id for each in of.alerts),
    }
