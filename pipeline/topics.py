"""Names of the topics, the record types that each holds, and the key of a record."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.types import (
    Alert,
    Anomaly,
    AudioChunk,
    DeadLetter,
    Described,
    Detections,
    FrameChunk,
    Late,
    Progress,
    Record,
    Report,
    Roster,
    Sound,
    Utterance,
)

FRAMES = "frames.v1"
AUDIO = "audio.v1"
REPORTS = "reports.v1"
OBSERVATIONS = "observations.v1"
ANOMALIES = "anomalies.v1"
ALERTS = "alerts.v1"
LATE = "late.v1"
DEAD = "dead.v1"

CHUNKS = (FRAMES, AUDIO, REPORTS)
ALL = (*CHUNKS, OBSERVATIONS, ANOMALIES, ALERTS, LATE, DEAD)

KINDS: Mapping[str, tuple[type[Record], ...]] = {  # the record types of the topics that stages read
    FRAMES: (FrameChunk, Progress, Roster),
    AUDIO: (AudioChunk, Progress, Roster),
    REPORTS: (Report, Progress, Roster),
    OBSERVATIONS: (Detections, Sound, Utterance, Described, Progress, Roster),
    ANOMALIES: (Anomaly, Progress),
    ALERTS: (Alert,),
}


def key_of(topic: str, record: Record) -> str:
    """Returns the key of a record: site and source for chunk topics, the site for all others."""
    return f"{record.site}/{record.source}" if topic in CHUNKS else record.site


def topic_of(record: Record, out: str) -> str:
    """Returns the topic of a stage's output: Late and DeadLetter have topics of their own."""
    match record:
        case Late():
            return LATE
        case DeadLetter():
            return DEAD
        case _:
            return out
