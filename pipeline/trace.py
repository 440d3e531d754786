"""Trace context: one trace id from the capture of a record to the webhook that it causes.

The format is W3C Trace Context (https://www.w3.org/TR/trace-context/): `traceparent` is
`00-TRACE-SPAN-01`. Ids derive from content and are never random: a record that is published again
after a crash, or in a replay, keeps its trace.
"""

from __future__ import annotations

import hashlib
import re

from pipeline.types import Record, event_start

_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_NONE = ("0" * 32, "0" * 16)  # the standard forbids ids that are all zeros


def begin(record: Record) -> str:
    """Returns the trace of a captured record: one per (type, site, source, event time)."""
    trace = _digest(32, type(record).__name__, record.site, record.source, event_start(record))
    return f"00-{trace}-{_digest(16, trace)}-01"


def child(parent: str, name: str) -> str:
    """Returns the next hop of the trace; "" if `parent` is empty or not a valid traceparent."""
    found = _FORM.fullmatch(parent)
    if found is None or found[1] == _NONE[0] or found[2] == _NONE[1]:
        return ""
    return f"00-{found[1]}-{_digest(16, parent, name)}{parent[-3:]}"


def _digest(digits: int, *parts: object) -> str:
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
