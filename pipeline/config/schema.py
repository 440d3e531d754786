"""The config as types: complete, frozen, never repaired.

`workers/config/loader.py` reads YAML into these and names file and line. The kinds of rules are in
`pipeline/config/rule_kinds.py`. The checks that need more than one field are in
`pipeline/config/checks.py`, which only looks. Names follow the NVR configs that people have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from msgspec import Meta

from pipeline.config.fields import (
    NAME,
    Fraction,
    MaxMessage,
    Name,
    OwnName,
    Partitioned,
    Seconds,
    Settings,
)
from pipeline.config.problem import Way
from pipeline.config.rule_kinds import Rule
from pipeline.config.site_modes import Modes
from pipeline.types import Severity


class Detect(Settings, frozen=True, kw_only=True):
    """How a camera's frames are analysed; heights are fractions of the frame."""

    fps: Annotated[float, Meta(gt=0, le=60)] = 5  # frames/s; frames that are analysed
    width: Annotated[int, Meta(ge=64, le=3840)] = 640  # px; longest side of the published JPEG
    min_score: Fraction = 0.4  # objects with a lower score are ignored
    min_height: Fraction = 0.0  # objects that are lower than this part of the frame are ignored
    # the picture's width by its height, like "16:9", for a recorder whose stream does not say that
    # its pixels are not square
    aspect: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}:[1-9][0-9]{0,4}$")] | None = None
    # `auto`: frames in which nothing moves are not looked at. `off`: every frame is looked at, and
    # no motion is measured
    gate: Annotated[str, Meta(pattern=r"^(auto|off)\Z")] = "auto"
    audit: Fraction = 0.01  # part of the gated frames that are looked at all the same
    # Which frames of a stream are decoded. `keyframes`: these alone, cheap and late by up to their
    # distance. `auto`: these alone while nothing moves
    decode: Annotated[str, Meta(pattern=r"^(all|keyframes|auto)\Z")] = "all"
    # `high`: the detector `models.detector_high` looks at the frames, which finds more and costs
    # more
    quality: Annotated[str, Meta(pattern=r"^(normal|high)\Z")] = "normal"
    # the most persons of a frame whose poses are estimated; by default 4 where a rule judges poses,
    # and none elsewhere
    poses: Annotated[int, Meta(ge=0, le=16)] | None = None


class Zone(Settings, frozen=True, kw_only=True):
    """A polygon in a camera's picture; an object is in it if its feet are."""

    # The corners, `"x,y, x,y, x,y"`, in fractions of the frame; 0,0 is the top left corner
    coordinates: str
    # The classes of objects that count in this zone, where a rule names none
    objects: tuple[str, ...] = ("person",)


class Line(Settings, frozen=True, kw_only=True):
    """A line in a camera's picture; `in` is to the right of a walk from the first point to the
    second."""

    coordinates: str  # the two points, `"x,y, x,y"`, in fractions of the frame


class Streams(Settings, frozen=True, kw_only=True):
    """The two streams of a camera, each an address or a mapping as `source`."""

    detect: str | Mapping[str, str]  # the small stream: it is looked at, and shown in alerts
    # The large stream. Nothing reads it yet: `check` checks its address, and `doctor` tries it
    record: str | Mapping[str, str]

    def __repr__(self) -> str:
        return "Streams(***)"


class Camera(Settings, frozen=True, kw_only=True):
    """A camera: where its pictures come from, and what is looked for in them."""

    # An address, or a mapping of `url`, `username` and `password`. A camera has this or `streams`
    source: str | Mapping[str, str] = ""
    streams: Streams | None = None  # a small and a large stream, in place of `source`
    # The device that decodes its stream, as FFmpeg calls it. `auto`: one that works. `off`: none.
    # Software decodes where no device does
    hwaccel: Annotated[str, Meta(pattern=r"^(off|auto|cuda|vaapi|qsv)\Z")] = "off"
    detect: Detect = Detect()  # how its frames are analysed
    zones: Mapping[Name, Zone] = {}  # its zones by name
    lines: Mapping[Name, Line] = {}  # its lines by name


class Hear(Settings, frozen=True, kw_only=True):
    """How a microphone's sound is analysed."""

    # `auto`: seconds that hold the usual noise alone are not heard by the models. `off`: every
    # second is heard, and no noise is measured
    gate: Annotated[str, Meta(pattern=r"^(auto|off)\Z")] = "auto"
    audit: Fraction = 0.01  # part of the gated seconds that are heard all the same


class Microphone(Settings, frozen=True, kw_only=True):
    """A microphone: where its sound comes from."""

    # An address, or a mapping of `url`, `username` and `password`. A camera and a microphone with
    # the same address share one connection and one clock
    source: str | Mapping[str, str]
    # which of several sound tracks of one stream or file, counted from 1; the first by default
    track: Annotated[int, Meta(ge=1, le=64)] | None = None
    hear: Hear = Hear()  # how its sound is analysed


def addresses(source: Camera | Microphone) -> dict[Way, str | Mapping[str, str]]:
    """Returns the addresses of a camera or microphone by their settings; the first is used."""
    if isinstance(source, Camera) and source.streams is not None:
        streams = source.streams
        return {("streams", "detect"): streams.detect, ("streams", "record"): streams.record}
    return {("source",): source.source}


class Windows(Settings, frozen=True, kw_only=True):
    """Window i is `[i*hop, i*hop+size)`; no state reaches further back than `horizon`."""

    size: Seconds = 4  # s; the length of a window
    hop: Seconds = 1  # s; from the start of one window to the next; must divide `size`
    # s; how long anything is remembered. No rule can look further back
    horizon: Annotated[float, Meta(ge=10, le=3600)] = 120
    # s; a source that says nothing for so long is declared lost; at least the horizon
    patience: Annotated[float, Meta(ge=10, le=86400)] = 900


class Incidents(Settings, frozen=True, kw_only=True):
    """An incident closes `close_after` its last evidence, and is split after `max_duration`."""

    close_after: Annotated[float, Meta(ge=1, le=10)] = 10  # s; without evidence
    max_duration: Annotated[float, Meta(ge=30, le=86400)] = 600  # s; then a new incident begins
    # s; a source that is lost for this long causes a `system` alert; at most the horizon
    lost_after: Seconds = 10
    # s; an event of high severity, such as a gunshot, is told again in an open incident, if so much
    # time has passed since the last one that was told
    remind: Seconds = 30
    # `site`: one incident for all sources of the site; `source`: one for each camera and microphone
    group: Annotated[str, Meta(pattern=r"^(site|source)\Z")] = "site"


class Stationary(Settings, frozen=True, kw_only=True):
    """An object is stationary if it moved less than `distance` (of its height) in `after` s. A
    stationary object causes one alert and no more."""

    after: Seconds = 60  # s; without movement
    distance: Annotated[float, Meta(gt=0, le=2)] = 0.25  # heights; of the object itself


class Fusion(Settings, frozen=True, kw_only=True):
    """The head that judges windows beside the rules. `fusion: rules` is short for
    `fusion: {head: rules}`."""

    # `shipped`, the folder of a head from `fusewatch train`, or `rules`: the noisy-or alone
    head: str = "shipped"
    # The score from which a window is an anomaly, for the head and for the noisy-or; by default
    # the head's own, and 0.8 for the noisy-or; more than 0
    threshold: Fraction | None = None
    severity: Severity = "high"  # the severity of the head's anomalies
    modes: tuple[Name, ...] = ()  # the modes of the site in which windows are judged; none: all


class Site(Settings, frozen=True, kw_only=True):
    """A place with its sources and rules. Sources of one site are judged together."""

    timezone: str = "UTC"  # the time zone of the schedules, such as `Europe/Berlin`
    modes: Modes = Modes()  # its modes, such as armed and home
    cameras: Mapping[Name, Camera] = {}  # its cameras by name
    microphones: Mapping[Name, Microphone] = {}  # its microphones by name; no name of a camera
    rules: tuple[Rule, ...] = ()  # what causes an alert
    windows: Windows = Windows()  # how observations are joined
    incidents: Incidents = Incidents()  # how anomalies become incidents
    stationary: Stationary = Stationary()  # when an object counts as standing still
    fusion: Fusion = Fusion()  # what judges windows beside the rules


class Destination(Settings, frozen=True, kw_only=True):
    """Who gets alerts."""

    sites: tuple[str, ...] = ()  # whose alerts it gets; none: all


class Webhook(Destination, frozen=True, kw_only=True):
    """A subscriber. Literal private or loopback addresses are allowed; a host *name* that
    resolves to one needs `allow_networks`, and plain http to a public one needs `allow_http`."""

    url: str  # where alerts are sent, by `POST`; https, without user and password
    # `whsec_...`, `${NAME}` or `file:PATH`; a list of several while one is rotated
    secret: str | tuple[str, ...]
    # The subscriber's name in commands, and its position in the log of alerts; by default made of
    # the host and a hash of the url
    name: OwnName = ""
    min_severity: Severity = "low"  # the lowest severity that it gets
    allow_http: bool = False  # allow plain http to a public address
    # Networks, such as `10.0.0.0/8`, that a host name may resolve to
    allow_networks: tuple[str, ...] = ()
    timeout: Seconds = 20  # s; for one attempt
    # `inline` puts a JPEG of at most 12 kB into each alert, for a receiver on another machine
    picture: Annotated[str, Meta(pattern=r"^(none|inline)\Z")] = "none"


class Jsonl(Destination, frozen=True, kw_only=True):
    """A file that receives alerts as JSON lines."""

    path: str  # the path of the file; `~` is the home folder


class Model(Settings, frozen=True, kw_only=True):
    """The adapter and weights of a model."""

    kind: str  # the adapter
    weights: str  # a registered name (`fusewatch weights list`) or a path
    providers: tuple[str, ...] = ("cpu",)  # where it runs: cpu, cuda, tensorrt, openvino
    threads: Annotated[int, Meta(ge=0, le=64)] = 0  # 0: one a core; a picture on each, if it can


class Models(Settings, frozen=True, kw_only=True):
    """Which model does what."""

    # Objects in pictures: `yolox`, `onnx`, or `ultralytics` (an extra, AGPL-3.0)
    detector: Model = Model(kind="yolox", weights="yolox_nano")
    # The same for cameras of `detect.quality: high`; by default NanoDet-Plus
    detector_high: Model = Model(kind="onnx", weights="nanodet_plus_m_416")
    # Words in sound: `faster-whisper`, or `openai-whisper` (an extra)
    speech: Model = Model(kind="faster-whisper", weights="faster-whisper-tiny.en")
    sound: Model = Model(kind="yamnet", weights="yamnet")  # kinds of sound: `yamnet`
    text: Model = Model(kind="minilm", weights="all-MiniLM-L6-v2-int8")  # meaning: `minilm`
    # Poses of persons, where a camera estimates them (`detect.poses`): `movenet` or `blazepose`
    pose: Model = Model(kind="movenet", weights="movenet_lightning_int8")


class LocalBus(Settings, tag_field="kind", tag="local", frozen=True, kw_only=True):
    """The local log in the state folder."""

    max_message: MaxMessage = 8_000_000  # bytes; the largest record
    # s; a stage or delivery that has work and makes no progress for so long ends the process
    stall: Seconds = 120


class Sasl(Settings, frozen=True, kw_only=True):
    """The credentials for the brokers. Without `tls` they are sent to this machine only."""

    # PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
    mechanism: Annotated[str, Meta(pattern=r"^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)\Z")]
    username: str  # the user's name
    password: str  # `${ENV}` or `file:PATH`


class Tls(Settings, frozen=True, kw_only=True):
    """Encryption to the brokers, whose certificates are always verified; paths of PEM files.
    `tls: {}` trusts the system's authorities."""

    ca: str = ""  # default: the system's authorities
    cert: str = ""  # our client certificate, if the brokers require one
    key: str = ""  # its private key, without a passphrase


class Partitions(Settings, frozen=True, kw_only=True):
    """The number of partitions of each topic, which limits the workers that can share it."""

    frames: Partitioned = 12  # of `PREFIX.frames.v1`
    audio: Partitioned = 6  # of `PREFIX.audio.v1`
    reports: Partitioned = 3  # of `PREFIX.reports.v1`
    observations: Partitioned = 6  # of `PREFIX.observations.v1`
    anomalies: Partitioned = 6  # of `PREFIX.anomalies.v1`
    alerts: Partitioned = 3  # of `PREFIX.alerts.v1`


class KafkaBus(Settings, tag_field="kind", tag="kafka", frozen=True, kw_only=True):
    """Apache Kafka, for `fusewatch worker`; docs/explanations/scaling.md explains the sizing."""

    # `host:port` of each broker; one that answers is enough to find the others
    brokers: Annotated[tuple[str, ...], Meta(min_length=1)]
    # The first part of the names of topics and consumer groups; two installations on one cluster
    # need two
    prefix: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}\Z", description=NAME)] = (
        "fusewatch"
    )
    tls: Tls | None = None  # encryption to the brokers
    sasl: Sasl | None = None  # credentials for the brokers
    replication: Annotated[int, Meta(ge=1, le=9)] = 3  # copies of each record; 1 for one broker
    # Copies that must exist before a record counts as written; 1 for one broker
    min_insync: Annotated[int, Meta(ge=1, le=9)] = 2
    partitions: Partitions = Partitions()  # how many each topic has
    max_message: MaxMessage = 1_000_000  # bytes; the largest record; a camera's frame must fit
    # The disk space for what capture stores while the brokers do not answer; at least 100 MB
    spool: str = "2 GB"
    # s; a capture worker without a heartbeat for so long is declared lost
    absent: Annotated[float, Meta(ge=15, le=86400)] = 15
    stall: Seconds = 120  # s; a worker exits after this time with a backlog and no progress


class Storage(Settings, frozen=True, kw_only=True):
    """How much is kept. With Kafka, `cap` is for one copy of all topics together."""

    cap: str = "20 GB"  # everything below the state folder, `500 MB`, `2 TiB`; at least 100 MB
    frames: Seconds = 900  # s; how long raw frames and sound are kept for evidence


class Recording(Settings, frozen=True, kw_only=True):
    """A continuous recording of what is captured and found, as MCAP files. They hold pictures and
    sound."""

    keep: str = "50 GB"  # the disk space for the files; the oldest are deleted; at least 100 MB
    # `incidents`: pictures and sound are kept from a minute before an incident to a minute after
    # it. `always`: everything is kept
    around: Annotated[str, Meta(pattern=r"^(incidents|always)\Z")] = "incidents"
    path: str = ""  # the folder; by default `recordings` in the state folder


class Api(Settings, frozen=True, kw_only=True):
    """The local endpoint for reports; loopback only."""

    listen: str = "127.0.0.1:8674"  # a loopback address and a port
    # At least 16 characters, or `file:PATH`; by default the file `token` in the state folder,
    # which `init` or `run` makes
    token: str = ""


class Config(Settings, frozen=True, kw_only=True):
    """The whole file."""

    version: Annotated[int, Meta(ge=1, le=1)]  # the version of the format
    sites: Mapping[Name, Site]  # the sites by name; at least one
    state: str = "~/.local/state/fusewatch"  # the folder of all that is kept; --state overrides it
    bus: LocalBus | KafkaBus = LocalBus()  # what carries the records
    storage: Storage = Storage()  # how much is kept
    recording: Recording | None = None  # a continuous recording; by default there is none
    webhooks: tuple[Webhook, ...] = ()  # subscribers that get alerts by HTTP
    jsonl: tuple[Jsonl, ...] = ()  # files that get alerts
    models: Models = Models()  # which model does what
    api: Api = Api()  # the local endpoint

    def destinations(self) -> Iterator[tuple[Way, Destination]]:
        """Everybody that gets alerts, with the way to them."""
        for key in self.__struct_fields__:
            given = getattr(self, key)
            for i, each in enumerate(given if isinstance(given, tuple) else ()):
                yield (key, i), each


def size_bytes(text: str) -> int:
    """Returns the bytes of `"20 GB"` (decimal) or `"512 MiB"` (binary); raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([KMGT]i?)?B", text)
    if found is None:
        msg = "must be a number and a unit, like 500 MB or 20 GB"
        raise ValueError(msg)
    unit = found[2] or ""
    step = 1024 if unit.endswith("i") else 1000
    return int(float(found[1]) * step ** ("KMGT".index(unit[0]) + 1 if unit else 0))
