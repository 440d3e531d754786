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
from typing import Annotated

import msgspec
from msgspec import Meta

SECOND = 1_000_000_000
FOREVER = 2**62  # ns; later than any event: a floor that holds nothing back
BEFORE_ALL = -(2**63)  # ns; earlier than any event, promise and floor
SYSTEM = "system"  # the rule of a lost source or a failed stage: never mixed with what happened
ROSTER_EVERY = 10 * SECOND  # capture says a site's roster again this often (event time)
ROSTER_STANDS = 3 * ROSTER_EVERY  # so a restart that reads back this far always meets one
# What no stage of ours writes is refused where a record is decoded: a number that is none, or one
# with which nobody can calculate, would end whoever reads it, again after every restart.
Whole = Annotated[int, Meta(ge=-FOREVER, le=FOREVER)]
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]  # finite: NaN is refused, too
SEVERITIES = ("low", "medium", "high", "critical")
Severity = Annotated[str, Meta(pattern=r"^(low|medium|high|critical)\Z")]
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

    start: Whole
    end: Whole
    seq: Whole  # counts every captured frame of the source, also those not published
    width: Whole
    height: Whole
    data: bytes


class AudioChunk(Record, frozen=True, kw_only=True, tag=True):
    """Captured sound: `data` is s16le PCM, `channels` interleaved, `rate` samples a second."""

    start: Whole
    end: Whole
    seq: Whole
    rate: Whole
    channels: Whole
    data: bytes


class Report(Record, frozen=True, kw_only=True, tag=True):
    """What a person submitted; `start` is its receipt."""

    start: Whole
    end: Whole
    author: str
    text: str


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """One detected object; score and corners are rounded to 1e-3 before anybody looks at them."""

    label: str
    score: Number
    x1: Number
    y1: Number
    x2: Number
    y2: Number


class Detections(Record, frozen=True, kw_only=True, tag=True):
    """The objects of one frame, also when there are none; no track ids.

    `luma` is the mean of the frame, 0 (black) to 1 (white). `sharpness` is `log10(1 + v)`, v the
    variance of the Laplacian of its luma (0 to 255), scaled to 160 px on the longest side; Pech-
    Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000. -1: not measured.
    """

    start: Whole
    end: Whole
    boxes: tuple[Box, ...] = ()
    embedding: bytes = b""
    luma: Number = -1.0
    sharpness: Number = -1.0


class Utterance(Record, frozen=True, kw_only=True, tag=True):
    """What somebody said; `confidence` is the mean token probability, 0 to 1."""

    start: Whole
    end: Whole
    text: str
    language: str
    confidence: Number
    embedding: bytes = b""


class Sound(Record, frozen=True, kw_only=True, tag=True):
    """UTC second `start` of a microphone; `labels` are calibrated probabilities; dBFS (RMS).

    `clipped` is the share of its samples at 0.999 of full scale or more, `floor_db` the RMS of the
    quietest tenth of its pieces of 20 ms: the noise floor. What was not captured counts as silence.
    """

    start: Whole
    end: Whole
    labels: Mapping[str, Number] = {}
    loudness_db: Number = -120.0
    embedding: bytes = b""
    clipped: Number = 0.0
    floor_db: Number = -120.0


class Described(Record, frozen=True, kw_only=True, tag=True):
    """A `Report` after the text encoder."""

    start: Whole
    end: Whole
    text: str
    author: str
    embedding: bytes = b""


class Progress(Record, frozen=True, kw_only=True, tag=True):
    """A promise: nothing from this source starts before `upto`.

    `alive=False` is made *for* a source that is lost, and `reason` says why.
    """

    upto: Whole
    alive: bool = True
    reason: str = ""


class Roster(Record, frozen=True, kw_only=True, tag=True):
    """Which observation sources the site has, from `start` on; `source` is who says so.

    A microphone `room` is two observation sources: `room` (sound) and `room/speech`.
    """

    sources: tuple[str, ...]
    start: Whole


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
    index: Whole
    start: Whole
    end: Whole
    observations: tuple[Observation, ...]
    presence: Mapping[str, Presence]


class Late(Record, frozen=True, kw_only=True, tag=True):
    """A record that came below a promise made for its source; `record` is its encoding."""

    start: Whole
    kind: str
    record: bytes


class DeadLetter(Record, frozen=True, kw_only=True, tag=True):
    """A record that could not be used: where it stood, why, and its bytes."""

    topic: str
    partition: Whole
    offset: Whole
    reason: str
    value: bytes


class Anomaly(Record, frozen=True, kw_only=True, tag=True):
    """One judgement: a rule or the fusion head found something in `[start, end)`."""

    id: str
    start: Whole
    end: Whole
    rule: str
    label: str
    severity: Severity
    score: Number
    presence: Mapping[str, Presence] = {}
    text: str = ""  # what was said or reported, where words were the reason
    reasons: tuple[str, ...] = ()
    contributions: Mapping[str, Number] = {}  # modality -> share of the verdict, sums to 1
    head: str = ""  # name and version of the fusion head of the stage that made it, if any


class Alert(Record, frozen=True, kw_only=True, tag=True):
    """One revision of an incident; `time` is the event time of the record that caused it."""

    id: str
    revision: Whole
    state: str  # opened | updated | closed
    time: Whole
    label: str
    labels: tuple[str, ...]
    rules: tuple[str, ...]
    severity: Severity
    score: Number
    start: Whole
    end: Whole | None
    presence: Mapping[str, Presence] = {}
    transcript: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    contributions: Mapping[str, Number] = {}
    evidence: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()  # of its anomalies, sorted; several where one was swapped meanwhile


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


def needed_until(record: Record) -> int:
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
