"""The record types of Fusewatch: one definition for wire, log and JSON.

Time is `int` nanoseconds UTC since the Unix epoch; a span is half open, `[start, end)`. Boxes and
lines are fractions of the frame, `0` top left and `1` bottom right. An embedding is the bytes of a
little-endian float16 vector, empty when there is none.
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
FOREVER = 2**62  # ns; later than any event; as a floor: no record is needed
BEFORE_ALL = -(2**63)  # ns; earlier than any event, promise and floor
SYSTEM = "system"  # rule of anomalies about lost sources or failed stages; has its own incidents
ROSTER_EVERY = 10 * SECOND  # event time between two publications of a site's roster by capture
ROSTER_STANDS = 3 * ROSTER_EVERY  # a restart that reads back this far always finds a roster
# The decoder refuses numbers that no stage writes: NaN, or values too large to compute with. Such a
# number would crash every reader, again after each restart.
Whole = Annotated[int, Meta(ge=-FOREVER, le=FOREVER)]
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]  # finite: NaN is refused
SEVERITIES = ("low", "medium", "high", "critical")
Severity = Annotated[str, Meta(pattern=r"^(low|medium|high|critical)\Z")]
Corners = tuple[Number, Number, Number, Number]  # x1, y1, x2, y2 of a box, 0 to 1
Keypoints = Annotated[bytes, Meta(min_length=102, max_length=102)]  # `pipeline/judge/pose.py`
Appearance = Annotated[bytes, Meta(min_length=50, max_length=50)]  # `pipeline/judge/appearance.py`
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ns(seconds: float) -> int:
    """Converts seconds to nanoseconds, rounded to the nearest."""
    return round(seconds * SECOND)


def rfc3339(time: int) -> str:
    """Formats ns UTC as `2026-01-01T00:00:06.000000000Z`; raises ValueError outside years 1
    to 9999."""
    seconds, rest = divmod(time, SECOND)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        msg = f"{time} ns is no time of a calendar"
        raise ValueError(msg) from error
    return f"{moment.replace(tzinfo=None).isoformat()}.{rest:09d}Z"


class Record(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The base of all records: the site and source that it comes from."""

    site: str  # the name of the site
    source: str  # the name of the source


class FrameChunk(Record, frozen=True, kw_only=True, tag=True):
    """One captured frame: `data` is one JPEG of `width` x `height` pixels."""

    start: Whole
    end: Whole
    seq: Whole  # counts every captured frame of the source, also those not published
    width: Whole  # px; of the picture
    height: Whole  # px; of the picture
    data: bytes  # the JPEG
    # why the frame wants a look: `all` (nobody measured motion), `motion`, `heartbeat`, `first`,
    # `light`; empty: nothing moves
    look: str = "all"
    # how much moved in each cell of a grid, row by row, 0 to 255; empty: unknown
    motion: bytes = b""
    regions: tuple[Corners, ...] = ()  # where something moved


class AudioChunk(Record, frozen=True, kw_only=True, tag=True):
    """Captured sound: `data` is s16le PCM, `channels` interleaved, `rate` samples per second."""

    start: Whole
    end: Whole
    seq: Whole  # counts every captured chunk of the source
    rate: Whole  # Hz; samples per second of one channel
    channels: Whole  # interleaved in `data`
    data: bytes  # the PCM
    # why it is to be heard: `all` (nobody measured), `first` (the noise is not known yet), `sound`,
    # `heartbeat`; empty: it holds the usual noise alone
    listen: str = "all"
    noise_db: Whole | None = None  # dBFS; the usual noise of the microphone; none: unknown


class Report(Record, frozen=True, kw_only=True, tag=True):
    """A text that a person submitted; `start` is the time of its receipt."""

    start: Whole
    end: Whole
    author: str  # who wrote it; may be empty
    text: str  # what was written


class Box(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One detected object; all numbers are rounded to 1e-3 before any threshold.

    A box without a pose is stored without the field `keypoints`, and one without a look without
    `appearance`.
    """

    label: str  # the class of the object
    score: Number  # 0 to 1
    x1: Number  # the left edge, 0 to 1
    y1: Number  # the top edge, 0 to 1
    x2: Number  # the right edge, 0 to 1
    y2: Number  # the bottom edge, 0 to 1
    # the pose of a person: 17 keypoints of COCO, each x, y and score, in thousandths of the frame
    # and of 1, uint16, little-endian; left out: no pose
    keypoints: Keypoints = b""
    # the mean of the recorded motion in the box, 0 to 1; left out where no pose was wanted
    motion: Number = 0.0
    # how a person looks: histograms of brightness and colour, of the upper and of the lower half of
    # the box; left out: not a person, or too small
    appearance: Appearance = b""

    def bare(self) -> Box:
        """The box without pose and appearance."""
        if not (self.keypoints or self.appearance):
            return self
        return msgspec.structs.replace(self, keypoints=b"", appearance=b"")


class Detections(Record, frozen=True, kw_only=True, tag=True):
    """The objects of one frame, published even when there are none; no track ids.

    `luma` is the mean of the frame, 0 (black) to 1 (white). `sharpness` is `log10(1 + v)`, v the
    variance of the Laplacian of its luma (0 to 255), scaled to 160 px on the longest side;
    Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000. -1: not measured.
    """

    start: Whole
    end: Whole
    boxes: tuple[Box, ...] = ()  # the objects
    embedding: bytes = b""
    luma: Number = -1.0  # mean of the frame, 0 to 1
    sharpness: Number = -1.0  # `log10(1 + v)`, see above
    gated: bool = False  # true: nobody looked at the frame, because nothing moves in it


class Utterance(Record, frozen=True, kw_only=True, tag=True):
    """A transcribed utterance; `confidence` is the mean token probability, 0 to 1."""

    start: Whole
    end: Whole
    text: str  # what was said
    language: str  # its code, such as `en`
    confidence: Number  # mean token probability, 0 to 1
    embedding: bytes = b""


class Sound(Record, frozen=True, kw_only=True, tag=True):
    """UTC second `start` of a microphone; `labels` are calibrated probabilities; dBFS (RMS).

    `clipped` is the share of samples at 0.999 of full scale or more. `floor_db` is the noise floor:
    the RMS of the quietest tenth of its pieces of 20 ms. Audio that was not captured counts as
    silence.
    """

    start: Whole
    end: Whole
    labels: Mapping[str, Number] = {}  # label -> calibrated probability
    loudness_db: Number = -120.0  # dBFS; RMS of the second
    embedding: bytes = b""
    clipped: Number = 0.0  # share of samples at full scale, 0 to 1
    floor_db: Number = -120.0  # dBFS; the noise floor
    gated: bool = False  # true: no model heard the second, because it holds the usual noise alone
    # true: it lies half a second before a UTC second, so that rules hear the begin of that second
    # sooner; it has no embedding, and no window holds it
    early: bool = False


class Described(Record, frozen=True, kw_only=True, tag=True):
    """A `Report` with the embedding of the text encoder."""

    start: Whole
    end: Whole
    text: str  # what was written
    author: str  # who wrote it; may be empty
    embedding: bytes = b""


class Progress(Record, frozen=True, kw_only=True, tag=True):
    """A promise: no later record of this source starts before `upto`.

    `alive=False` is published on behalf of a lost source, and `reason` says why it is lost.
    """

    upto: Whole  # ns; no later record of this source starts before it
    alive: bool = True  # false: it is published on behalf of a lost source
    reason: str = ""  # why the source is lost


class Roster(Record, frozen=True, kw_only=True, tag=True):
    """The observation sources of a site from `start` on; `source` is the publisher.

    A microphone `room` gives two observation sources: `room` (sound) and `room/speech`.
    """

    sources: tuple[str, ...]  # the names of the observation sources
    start: Whole  # ns; the roster is valid from here on


class Mode(Record, frozen=True, kw_only=True, tag=True):
    """The mode of a site that a person has set, or that a rule is snoozed; holds `[start, until)`.

    It holds until the next one of the same `rule`. The source says it again while it holds. The
    mode `auto` ends what was set: the schedule of the site decides again, and rules judge again.
    """

    start: Whole  # ns; it holds from here on
    mode: str  # `armed`, `home`, ...; `snoozed` of rules; `auto` for no mode by hand
    until: Whole | None = None  # ns; it holds until here; none: until the next one
    by: str = ""  # who has set it
    rule: str = ""  # the rule that is snoozed, `*` for all; empty: it is the mode of the site
    said: Whole  # ns; the time of this statement


class Presence(str, Enum):
    """The state of a source in a window."""

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
    """A record below a promise made on behalf of its source; `record` is its encoding."""

    start: Whole
    kind: str  # the type of the record
    record: bytes  # its encoding


class DeadLetter(Record, frozen=True, kw_only=True, tag=True):
    """A record that could not be used: its position, the reason and its bytes."""

    topic: str  # where it was
    partition: Whole  # where it was
    offset: Whole  # where it was
    reason: str  # why it could not be used
    value: bytes  # its first 256 kB


class Anomaly(Record, frozen=True, kw_only=True, tag=True):
    """One result of a rule or of the fusion head: what it found in `[start, end)`."""

    id: str  # depends only on its content
    start: Whole
    end: Whole
    rule: str  # the name of the rule, or the head
    label: str  # what was found
    severity: Severity  # low, medium, high or critical
    score: Number  # 0 to 1
    presence: Mapping[str, Presence] = {}  # source -> present, silent or lost
    text: str = ""  # the spoken or reported text, if words were the reason
    reasons: tuple[str, ...] = ()  # for a person to read
    contributions: Mapping[str, Number] = {}  # modality -> share of the verdict, sums to 1
    head: str = ""  # name and version of the stage's fusion head, if any
    # object | behaviour | sound | speech | report | learned | system; empty: an older version's
    kind: str = ""
    zone: str = ""  # the zone of the rule, if it has one
    line: str = ""  # the line of the rule, if it has one
    object: str = ""  # the class of the object, if the rule is about one
    box: Corners | None = None  # where in the frame that starts at `start`
    what: str = ""  # what was found and where, without the time; for a person to read
    mode: str = ""  # the mode of the site at `start`
    counts: bool = True  # false: an early sound has told it, and it is not counted again


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What an incident knows of one thing that was found, over all anomalies of this thing.

    Anomalies with the same source, kind, label, zone, line and class of object are one finding.
    """

    source: str  # the name of the source; `window` for a judgement of the whole site
    kind: str  # object | behaviour | sound | speech | report | learned | system
    label: str  # what was found
    zone: str = ""  # the zone of the rule, if it has one
    line: str = ""  # the line of the rule, if it has one
    object: str = ""  # the class of the object, if the rule is about one
    score: Number  # the highest, 0 to 1
    start: Whole  # ns; of the earliest anomaly
    end: Whole  # ns; of the last anomaly
    count: Whole  # how many anomalies
    box: Corners | None = None  # of the anomaly with the highest score, if it has a place
    at: Whole  # ns; start of the anomaly with the highest score


class Alert(Record, frozen=True, kw_only=True, tag=True):
    """One revision of an incident; `time` is the event time of the record that caused it."""

    id: str  # of the incident
    revision: Whole  # counts from 0
    state: str  # opened | updated | closed
    time: Whole  # ns; event time of the record that caused it
    label: str  # the label with the highest severity
    labels: tuple[str, ...]  # all labels, sorted
    rules: tuple[str, ...]  # the names of all rules, sorted
    severity: Severity  # the highest so far
    score: Number  # the highest so far, 0 to 1
    start: Whole  # ns; of the earliest evidence
    end: Whole | None  # ns; of the last evidence; none while it is open
    presence: Mapping[str, Presence] = {}  # source -> lost if ever, else present if ever
    transcript: tuple[str, ...] = ()  # what was said and reported
    reasons: tuple[str, ...] = ()  # for a person to read
    contributions: Mapping[str, Number] = {}  # modality -> share of the verdict
    evidence: tuple[str, ...] = ()  # files below `evidence/` in the state folder
    heads: tuple[str, ...] = ()  # of its anomalies, sorted; several if one was replaced meanwhile
    # why this revision exists: `opened`, `severity`, `labels`, `rules`, `presence`, `again`,
    # `closed`; several in this order
    changed: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()  # the gravest, then the surest, then the newest
    findings_cut: Whole = 0  # how many more there are
    reasons_new: tuple[str, ...] = ()  # the reasons that no earlier revision told
    group: str = ""  # the source that the incident is about; empty: the whole site
    modes: tuple[str, ...] = ()  # of its anomalies, sorted


class SiteConfig(Record, frozen=True, kw_only=True, tag=True):
    """What judges a site from `start` on; published when it changes.

    It has no addresses, paths or secrets.
    """

    start: Whole  # ns; it is in force from here on
    hash: str  # SHA-256 of the settings and the head
    head: str  # name and version of the fusion head, or `rules`
    head_sha256: str = ""  # of the head's file; empty for `rules`
    recorded: bool = False  # recordings were judged: no source is lost by its silence
    settings: str  # JSON with sorted keys: rules, zones, lines, windows, incidents, models, ...


Any = (
    FrameChunk | AudioChunk | Report | Detections | Utterance | Sound | Described
    | Progress | Roster | Mode | Late | DeadLetter | Anomaly | Alert | SiteConfig
)  # fmt: skip


def event_start(record: Record) -> int:
    """Returns the event time of a record: its start, `upto` of a promise, `said` of a mode. Ns."""
    match record:
        case Progress():
            return record.upto
        case Mode():
            return record.said
        case DeadLetter():
            return 0
        case _:
            return int(record.start)  # type: ignore[attr-defined]


def needed_until(record: Record) -> int:
    """Returns the floor at which a restart no longer needs this record. Ns."""
    match record:
        case Progress():
            return record.upto
        case Roster():
            return record.start + ROSTER_STANDS
        case Mode():
            return record.said + ROSTER_STANDS
        case Late() | DeadLetter() | SiteConfig():
            return 0
        case Alert():
            return record.time
        case _:
            return int(record.end)  # type: ignore[attr-defined]


def content_id(*parts: object) -> str:
    """Returns an id of 16 hex digits that depends only on `parts` (SHA-256, first 8 bytes)."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
