"""Builds records for tests, with defaults for all values that a test does not use.

Arguments give times in seconds since the epoch; records hold them in ns.
"""

from __future__ import annotations

from typing import Any

from pipeline.types import (
    Alert,
    Anomaly,
    AudioChunk,
    Box,
    Described,
    Detections,
    FrameChunk,
    Mode,
    Progress,
    Record,
    Report,
    Roster,
    Sound,
    Utterance,
    content_id,
    event_start,
    ns,
)

SITE = "office"


def box(
    label: str = "person",
    x: float = 0.5,
    y: float = 0.5,
    *,
    score: float = 0.9,
    width: float = 0.1,
    height: float = 0.3,
    keypoints: bytes = b"",
    appearance: bytes = b"",
) -> Box:
    """A box around the point (x, y), in fractions of the frame."""
    half = width / 2, height / 2
    return Box(
        label=label,
        score=score,
        x1=round(x - half[0], 3),
        y1=round(y - half[1], 3),
        x2=round(x + half[0], 3),
        y2=round(y + half[1], 3),
        keypoints=keypoints,
        appearance=appearance,
    )


def detections(
    start: float, *boxes: Box, site: str = SITE, source: str = "desk", seconds: float = 0.2
) -> Detections:
    """The detections of the frame at `start`."""
    end = ns(start + seconds)
    return Detections(site=site, source=source, start=ns(start), end=end, boxes=boxes)


def sound(start: float, *, site: str = SITE, source: str = "room", **labels: float) -> Sound:
    """The sound of the second from `start` on, with calibrated probabilities: `gunshot=0.9`."""
    end = ns(start + 1)
    return Sound(site=site, source=source, start=ns(start), end=end, labels=labels)


def early(second: float, *, site: str = SITE, source: str = "room", **labels: float) -> Sound:
    """The early sound of the second from `second` on: it begins half a second before."""
    start, end = ns(second) - ns(0.5), ns(second) + ns(0.5)
    return Sound(site=site, source=source, start=start, end=end, labels=labels, early=True)


def comes(record: Record) -> int:
    """By what a log is in step: the event time, of an early sound that of the promise before it."""
    early_one = isinstance(record, Sound) and record.early
    return event_start(record) + (ns(0.5) if early_one else 0)


def utterance(
    start: float,
    text: str = "hello there",
    *,
    site: str = SITE,
    source: str = "room/speech",
    seconds: float = 1.0,
    language: str = "en",
    confidence: float = 0.9,
    embedding: bytes = b"",
) -> Utterance:
    """An utterance from `start` on, of `seconds`."""
    return Utterance(
        site=site,
        source=source,
        start=ns(start),
        end=ns(start + seconds),
        text=text,
        language=language,
        confidence=confidence,
        embedding=embedding,
    )


def report(
    start: float, text: str = "all is well", *, site: str = SITE, author: str = "guard-1"
) -> Report:
    """A report that a person submitted at `start`."""
    end = ns(start) + 1
    return Report(site=site, source="reports", start=ns(start), end=end, author=author, text=text)


def described(
    start: float,
    text: str = "all is well",
    *,
    site: str = SITE,
    author: str = "guard-1",
    embedding: bytes = b"",
) -> Described:
    """A report after the text encoder."""
    return Described(
        site=site,
        source="reports",
        start=ns(start),
        end=ns(start) + 1,
        text=text,
        author=author,
        embedding=embedding,
    )


def progress(
    upto: float,
    *,
    site: str = SITE,
    source: str = "desk",
    alive: bool = True,
    reason: str = "",
) -> Progress:
    """The promise that no later record of `source` starts before `upto`."""
    return Progress(site=site, source=source, upto=ns(upto), alive=alive, reason=reason)


def roster(*sources: str, start: float = 0.0, site: str = SITE, source: str = "desk") -> Roster:
    """The observation sources of the site, from `start` on; by default those of the office."""
    names = sources or ("desk", "room", "room/speech", "reports")
    return Roster(site=site, source=source, sources=names, start=ns(start))


def mode(
    name: str = "armed",
    start: float = 0.0,
    *,
    until: float | None = None,
    by: str = "ann",
    rule: str = "",
    said: float | None = None,
    site: str = SITE,
) -> Mode:
    """A mode that a person set at `start`, or the snooze of a `rule`."""
    end = None if until is None else ns(until)
    return Mode(
        site=site,
        source="reports",
        start=ns(start),
        mode=name,
        until=end,
        by=by,
        rule=rule,
        said=ns(start if said is None else said),
    )


def frame(
    start: float,
    data: bytes = b"\xff\xd8\xff\xd9",
    *,
    site: str = SITE,
    source: str = "desk",
    seq: int = 0,
    seconds: float = 0.2,
    width: int = 640,
    height: int = 360,
) -> FrameChunk:
    """One captured picture; its default data is a JPEG without pixels that cannot be decoded."""
    return FrameChunk(
        site=site,
        source=source,
        start=ns(start),
        end=ns(start + seconds),
        seq=seq,
        width=width,
        height=height,
        data=data,
    )


def audio(
    start: float,
    data: bytes | None = None,
    *,
    site: str = SITE,
    source: str = "room",
    seq: int = 0,
    rate: int = 16000,
    seconds: float = 0.5,
) -> AudioChunk:
    """Captured mono audio; by default `seconds` of silence."""
    pcm = bytes(2 * round(rate * seconds)) if data is None else data
    return AudioChunk(
        site=site,
        source=source,
        start=ns(start),
        end=ns(start) + len(pcm) // 2 * 1_000_000_000 // rate,
        seq=seq,
        rate=rate,
        channels=1,
        data=pcm,
    )


def anomaly(
    start: float,
    label: str = "gunshot",
    *,
    site: str = SITE,
    rule: str = "sound",
    severity: str = "high",
    score: float = 0.9,
    seconds: float = 1.0,
    text: str = "",
) -> Anomaly:
    """An anomaly of the microphone `room`; its id is a hash of site, rule, label and start."""
    return Anomaly(
        id=content_id(site, rule, label, ns(start)),
        site=site,
        source="room",
        start=ns(start),
        end=ns(start + seconds),
        rule=rule,
        label=label,
        severity=severity,
        score=score,
        text=text,
        contributions={"sound": 1.0},
    )


def alert(site: str = SITE, **given: Any) -> Alert:
    """A revision of an incident; times in `given` are in ns."""
    dull: dict[str, Any] = {
        **{"id": "0123456789abcdef", "revision": 0, "state": "opened", "time": ns(1000)},
        **{"label": "intrusion", "labels": ("intrusion",), "rules": ("zone-floor",)},
        **{"severity": "high", "score": 0.9, "start": ns(999), "end": None},
    }
    return Alert(site=site, source="alert", **(dull | given))
