"""Names of sources, and the times at which their records are known and may be followed."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.types import AudioChunk, Mode, Progress, Record, Roster, event_start

REPORTS_SOURCE = "reports"
_SPEECH = "/speech"  # no name of a microphone has a slash
# begin of the reason of a Progress that a heartbeat monitor publishes for a capture
CAPTURE_IS_SILENT = "its capture has said nothing for"


def known_at(record: Record) -> int:
    """Returns the earliest time at which live capture can publish the record, in ns.

    Sound is known at its end, other records at their start.
    """
    return record.end if isinstance(record, AudioChunk) else event_start(record)


def first_free(record: Record) -> int:
    """Returns the earliest start of the source's next record after this one, in ns."""
    match record:
        case AudioChunk():
            return record.end
        case Progress() | Roster() | Mode():
            return event_start(record)
        case _:
            return event_start(record) + 1


def roster(cameras: Iterable[str], microphones: Iterable[str]) -> tuple[str, ...]:
    """Returns the observation sources of a site: each microphone gives two, and reports are
    always one."""
    heard = (name for room in microphones for name in (room, speech_source(room)))
    return (*cameras, *heard, REPORTS_SOURCE)


def speech_source(microphone: str) -> str:
    """Returns the name of a microphone's speech source."""
    return f"{microphone}{_SPEECH}"


def is_speech_source(source: str) -> bool:
    """Whether a source says what is spoken, not what sounds."""
    return source.endswith(_SPEECH)
