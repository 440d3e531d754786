"""Names of sources, and the instants at which a record is known and a next one may start."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.types import AudioChunk, Progress, Record, Roster, event_start

REPORTS_SOURCE = "reports"
_SPEECH = "/speech"  # no name of a microphone has a slash


def known_at(record: Record) -> int:
    """When a live capture could have published the record: sound is known at its end. Ns."""
    return record.end if isinstance(record, AudioChunk) else event_start(record)


def first_free(record: Record) -> int:
    """The first ns at which what a source publishes after this record may start."""
    match record:
        case AudioChunk():
            return record.end
        case Progress() | Roster():
            return event_start(record)
        case _:
            return event_start(record) + 1


def roster(cameras: Iterable[str], microphones: Iterable[str]) -> tuple[str, ...]:
    """The observation sources of a site; a microphone is two, and people may always report."""
    heard = (name for room in microphones for name in (room, speech_source(room)))
    return (*cameras, *heard, REPORTS_SOURCE)


def speech_source(microphone: str) -> str:
    """The observation source of what is said at a microphone."""
    return f"{microphone}{_SPEECH}"


def is_speech_source(source: str) -> bool:
    """Whether a source says what is spoken, not what sounds."""
    return source.endswith(_SPEECH)
