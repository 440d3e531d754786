"""An alert and a test event as receivers get them, for the reference."""

from __future__ import annotations

import json
from typing import Any

from pipeline.types import SECOND, Alert, Finding, Presence
from workers.delivery import cloudevent

_TEN = 1_767_261_600 * SECOND  # 2026-01-01T10:00:00Z
_ALERT = "5e0c1d9f1a2b3c4d"


def alert_example() -> Any:
    """A person in a closed office, and then breaking glass."""
    person = Finding(
        source="desk",
        kind="object",
        label="intrusion",
        zone="floor",
        object="person",
        score=0.93,
        start=_TEN + 6 * SECOND,
        end=_TEN + 8 * SECOND + SECOND // 5,
        count=11,
        box=(0.412, 0.23, 0.548, 0.871),
        at=_TEN + 7 * SECOND + SECOND // 5,
    )
    glass = Finding(
        source="room",
        kind="sound",
        label="glass",
        score=0.88,
        start=_TEN + 8 * SECOND,
        end=_TEN + 9 * SECOND,
        count=1,
        at=_TEN + 8 * SECOND,
    )
    reasons = ("10:00:06Z person in zone floor (camera desk)", "10:00:08Z glass (microphone room)")
    alert = Alert(
        site="office",
        source="alert",
        id=_ALERT,
        revision=1,
        state="updated",
        time=_TEN + 9 * SECOND,
        label="glass",
        labels=("glass", "intrusion"),
        rules=("sound", "zone-floor"),
        severity="critical",
        score=0.93,
        start=_TEN + 6 * SECOND,
        end=None,
        presence={"desk": Presence.PRESENT, "room": Presence.PRESENT},
        reasons=reasons,
        contributions={"sound": 0.443, "vision": 0.557},
        evidence=(f"office/{_ALERT}_1_desk.jpg",),
        heads=("fusion-attention 0.2.0 (5e0c1d9f)",),
        changed=("severity", "labels", "rules"),
        findings=(glass, person),
        reasons_new=reasons[1:],
    )
    return json.loads(cloudevent.event_bytes(alert))


def test_example() -> Any:
    """What `fusewatch webhooks test` sends to the webhook `siem`."""
    return json.loads(cloudevent.test_event("siem", _TEN)[1])
