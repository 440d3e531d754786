"""Names of the topics, the record types that each holds, and the key of a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the help of the command line needs the names alone
    from pipeline.types import Record

FRAMES = "frames.v1"
AUDIO = "audio.v1"
REPORTS = "reports.v1"
OBSERVATIONS = "observations.v1"
ANOMALIES = "anomalies.v1"
ALERTS = "alerts.v1"
LATE = "late.v1"
DEAD = "dead.v1"
CONFIGS = "configs.v1"

CHUNKS = (FRAMES, AUDIO, REPORTS)
ALL_TOPICS = (*CHUNKS, OBSERVATIONS, ANOMALIES, ALERTS, LATE, DEAD, CONFIGS)


def key_of(topic: str, record: Record) -> str:
    """Returns the key of a record: site and source for chunk topics, the site for all others."""
    return f"{record.site}/{record.source}" if topic in CHUNKS else record.site
