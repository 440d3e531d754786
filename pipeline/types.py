"""The records that travel through Fusewatch: one definition each for wire, log and JSON.

Time is `int` nanoseconds UTC since the Unix epoch; a span is half open, `[start, end)`.
Boxes and lines are fractions of the frame, `0` top left and `1` bottom right.
An embedding is the bytes of a little-endian float16 vector, empty when there is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum

import msgspec

SECOND = 1_000_000_000
FOREVER = 2**62  # ns; later than any event: a floor that holds nothing back
SYSTEM = "system"  # the rule of a lost source or a failed stage: never mixed with what happened
ROSTER_EVERY = 10 * SECOND  # capture says a site's roster again this often (event time)
ROSTER_STANDS = 3 * ROSTER_EVERY  # so a restart that reads back this far always meets one
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ns(seconds: float) -> int:
    """Seconds to nanoseconds, rounded to the nearest."""
    return round(seconds * SECOND)


def rfc3339(time: int) -> str:
    """Ns UTC as `2026-01-01T00:00:06.000000000Z`; raises ValueError outside the years 1 to 9999."""
    seconds, rest = divmod(time, SECOND)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        msg = f"{time} ns is no time of a calendar"
        raise ValueError(msg) from error
    return f"{moment.replace(tzinfo=None).isoformat()}.{rest:09d}Z"


class Record(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What every record says of itself: whose it is."""

    site: str
    source: str


class FrameChunk(Record, frozen=True, kw_only=True, tag=True):
    """One captured picture: `data` is one JPEG of `width` x `height` pixels."""

    start: int
    end: int
    seq: int  # counts every captured frame of the source, also those not published
    width: int
    height: int
    data: bytes


class AudioChunk(Record, frozen=True, kw_only=True, tag=True):
    """Captured sound: `data` is s16le PCM, `channels` interleaved, `rate` samples a second."""

    start: int
    end: int
    seq: int
    rate: int
    channels: int
    data: bytes


class Report(Record, frozen=True, kw_only=True, tag=True):
    """What a person submitted; `start` is its receipt."""

    start: int
    end: int
    author: str
    text: str


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """One detected object; score and corners are rounded to 1e-3 before anybody looks at them."""

    label: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


class Detections(Record, frozen=True, kw_only=True, tag=True):
    """The objects of one frame, also when there are none; no track ids."""

    start: int
    end: int
    boxes: tuple[Box, ...] = ()
    embedding: bytes = b""


class Utterance(Record, frozen=True, kw_only=True, tag=True):
    """What somebody said; `confidence` is the mean token probability, 0 to 1."""

    start: int
    end: int
    text: str
    language: str
    confidence: float
    embedding: bytes = b""


class Sound(Record, frozen=True, kw_only=True, tag=True):
    """UTC second `start` of a microphone; `labels` are calibrated probabilities; dBFS (RMS)."""

    start: int
    end: int
    labels: Mapping[str, float] = {}
    loudness_db: float = -120.0
    embedding: bytes = b""


class Described(Record, frozen=True, kw_only=True, tag=True):
    """A `Report` after the text encoder."""

    start: int
    end: int
    text: str
    author: str
    embedding: bytes = b""


class Progress(Record, frozen=True, kw_only=True, tag=True):
    """A promise: nothing from this source starts before `upto`.

    `alive=False` is made *for* a source that is lost, and `reason` says why.
    """

    upto: int
    alive: bool = True
    reason: str = ""


class Roster(Record, frozen=True, kw_only=True, tag=True):
    """Which observation sources the site has, from `start` on; `source` is who says so.

    A microphone `room` is two observation sources: `room` (sound) and `room/speech`.
    """

    sources: tuple[str, ...]
    start: int


class Presence(str, Enum):
    """What a window knows of a source."""

    PRESENT = "present"
    SILENT = "silent"
    LOST = "lost"


Observation = Detections | Utterance | Sound | Described
Chunk = FrameChunk | AudioChunk | Report


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A site's observations that overlap `[start, end)`, in (start, source, type) order."""

    site: str
    index: int
    start: int
    end: int
    observations: tuple[Observation, ...]
    presence: Mapping[str, Presence]


class Late(Record, frozen=True, kw_only=True, tag=True):
    """A record that came below a promise made for its source; `record` is its encoding."""

    start: int
    kind: str
    record: bytes


class DeadLetter(Record, frozen=True, kw_only=True, tag=True):
    """A record that could not be used: where it stood, why, and its bytes."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: bytes


class Anomaly(Record, frozen=True, kw_only=True, tag=True):
    """One judgement: a rule or the fusion head found something in `[start, end)`."""

    id: str
    start: int
    end: int
    rule: str
    label: str
    severity: str
    score: float
    presence: Mapping[str, Presence] = {}
    text: str = ""  # what was said or reported, where words were the reason
    reasons: tuple[str, ...] = ()
    contributions: Mapping[str, float] = {}  # modality -> share of the verdict, sums to 1


class Alert(Record, frozen=True, kw_only=True, tag=True):
    """One revision of an incident; `time` is the event time of the record that caused it."""

    id: str
    revision: int
    state: str  # opened | updated | closed
    time: int
    label: str
    labels: tuple[str, ...]
    rules: tuple[str, ...]
    severity: str
    score: float
    start: int
    end: int | None
    presence: Mapping[str, Presence] = {}
    transcript: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    contributions: Mapping[str, float] = {}
    evidence: tuple[str, ...] = ()


Any = (
    FrameChunk | AudioChunk | Report | Detections | Utterance | Sound | Described
    | Progress | Roster | Late | DeadLetter | Anomaly | Alert
)  # fmt: skip


def event_start(record: Record) -> int:
    """The event time a record speaks of: its start, or what it promises. Ns."""
    match record:
        case Progress():
            return record.upto
        case DeadLetter():
            return 0
        case _:
            return int(record.start)  # type: ignore[attr-defined]


def held_until(record: Record) -> int:
    """The floor from which on a restart no longer needs this record. Ns."""
    match record:
        case Progress():
            return record.upto
        case Roster():
            return record.start + ROSTER_STANDS
        case Late() | DeadLetter():
            return 0
        case Alert():
            return record.time
        case _:
            return int(record.end)  # type: ignore[attr-defined]


def content_id(*parts: object) -> str:
    """A 16-digit id that depends on nothing but `parts` (SHA-256, first 8 bytes)."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
