"""The types of the documents that subscribers get: alerts and test events.

`workers/delivery/cloudevent.py` fills them. They are written to JSON in the order of their fields.
The schemas in `workers/schemas/` and the page docs/reference/alert.md are made of them. Fields are
added; none is removed or changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pipeline.types import Severity

KINDS = ("object", "behaviour", "sound", "speech", "report", "learned", "system")
CHANGES = ("opened", "severity", "labels", "rules", "presence", "again", "closed")


def _open_words(*words: str) -> Meta:
    """The words of today. A later version may add others, which an older schema must accept."""
    return Meta(extra_json_schema={"anyOf": [{"enum": list(words)}, {"pattern": "^[a-z-]+$"}]})


Time = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z\Z",
        extra_json_schema={"format": "date-time"},
    ),
]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
State = Annotated[str, Meta(pattern=r"^(opened|updated|closed)\Z")]
PresenceWord = Annotated[str, Meta(pattern=r"^(present|silent|lost)\Z")]
Kind = Annotated[str, _open_words(*KINDS)]
Change = Annotated[str, _open_words(*CHANGES)]
Corners = Annotated[Sequence[Share], Meta(min_length=4, max_length=4)]
Uri = Annotated[str, Meta(min_length=1, extra_json_schema={"format": "uri-reference"})]
WebhookId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]
Base64 = Annotated[
    str, Meta(extra_json_schema={"contentEncoding": "base64", "contentMediaType": "image/jpeg"})
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes of an event, as CloudEvents 1.0 names them."""

    specversion: Literal["1.0"]  # the version of CloudEvents
    id: WebhookId  # the id of the event, the same in every attempt; the header `webhook-id` has it
    source: Uri  # who tells it: `/fusewatch`, and the site
    type: str  # what kind of event it is
    subject: str  # what it is about
    time: Time  # when it happened: RFC 3339 in UTC, with nine fractional digits
    datacontenttype: Literal["application/json"]  # the format of `data`


class FindingData(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found, over all the times that it was found in this incident."""

    source: str  # the name of the camera or microphone; `window` for a judgement of the whole site
    kind: Kind  # object, behaviour, sound, speech, report, learned, system; others may follow
    label: str  # what was found
    zone: str | None  # the zone of the rule; null if it has none
    line: str | None  # the line of the rule; null if it has none
    object: str | None  # the class of the object, such as `person`; null if it is no object
    score: Share  # the highest score, 0 to 1
    start: Time  # begin of the earliest time that it was found
    end: Time  # end of the last time that it was found
    count: Annotated[int, Meta(ge=1)]  # how many times it was found
    # left, top, right and bottom edge of the object in the frame that starts at `at`, as fractions
    # of the frame; null if it has no place
    box: Corners | None
    at: Time  # when the score was highest; the frame of `box` starts then


class AlertData(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of an incident."""

    alert_id: Annotated[str, Meta(min_length=1)]  # the incident; the same in all its revisions
    revision: Count  # counts the revisions of the incident from 0; the largest is right
    state: State  # opened, updated or closed
    # why this revision exists: opened, severity, labels, rules, presence, again, closed; several in
    # this order; later versions may add words
    changed: Sequence[Change]
    site: str  # the name of the site
    group: str  # the camera or microphone that the incident is about; empty for the whole site
    label: str  # the label of the gravest that was found
    labels: Sequence[str]  # all labels, sorted
    rules: Sequence[str]  # the names of all rules, sorted
    severity: Severity  # the highest severity so far
    score: Share  # the highest score so far, 0 to 1
    start: Time  # begin of the earliest evidence
    end: Time | None  # end of the last evidence; null until the incident is closed
    modes: Sequence[str]  # the modes of the site while it happened, sorted
    # what each source was: lost if it ever was lost, else present if it ever was present
    presence: Mapping[str, PresenceWord]
    findings: Sequence[FindingData]  # what was found: the gravest, then the surest, then the newest
    transcript: Sequence[str]  # what was said and reported; words of strangers, never instructions
    reasons: Sequence[str]  # why there is an alert, for a person to read; words of strangers too
    reasons_new: Sequence[str]  # those of `reasons` that no earlier revision told
    contributions: Mapping[str, Share]  # the share of each modality in the verdict
    evidence: Sequence[str]  # files below `evidence/` in the state folder
    heads: Sequence[str]  # the fusion heads that judged the site, sorted
    # how many items of which field are left out, because the document would be too long
    cut: Mapping[str, Annotated[int, Meta(ge=1)]]


class AlertEvent(Event, frozen=True, kw_only=True):
    """The document of an alert: a CloudEvent in structured mode, below 20 kB."""

    id: WebhookId  # `ALERT_REVISION`, the same in every attempt; the header `webhook-id` has it
    source: Annotated[Uri, Meta(pattern=r"^/fusewatch/")]  # `/fusewatch/SITE`
    # `fusewatch.alert.` and the state
    type: Annotated[str, Meta(pattern=r"^fusewatch\.alert\.(opened|updated|closed)\Z")]
    subject: str  # `SITE/LABEL`
    data: AlertData  # the alert
    # a JPEG of the alert, base64; only for webhooks with `picture: inline`, and only if it fits
    picture: Base64 | UnsetType = UNSET


class TestData(msgspec.Struct, frozen=True, kw_only=True):
    """What a test event says."""

    message: str  # a sentence for a person


class TestEvent(Event, frozen=True, kw_only=True):
    """The document of `fusewatch webhooks test`: nothing happened."""

    type: Literal["fusewatch.test"]  # always the same
    subject: str  # the name of the webhook
    data: TestData  # a message


# pytest collects classes by name
TestData.__test__ = False  # type: ignore[attr-defined]
TestEvent.__test__ = False  # type: ignore[attr-defined]
