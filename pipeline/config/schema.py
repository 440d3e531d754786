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
from pipeline.types import Severity


class Detect(Settings, frozen=True, kw_only=True):
    """How a camera's frames are analysed; heights are fractions of the frame."""

    fps: Annotated[float, Meta(gt=0, le=60)] = 5
    width: Annotated[int, Meta(ge=64, le=3840)] = 640  # px; longest side of the published JPEG
    min_score: Fraction = 0.4
    min_height: Fraction = 0.0
    # width by height of the picture, for recorders whose stream does not say it; else the stream's
    aspect: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}:[1-9][0-9]{0,4}$")] | None = None


class Zone(Settings, frozen=True, kw_only=True):
    """A polygon `"x,y, x,y, x,y"` in fractions of the frame; an object is in it if its feet are."""

    coordinates: str
    objects: tuple[str, ...] = ("person",)


class Line(Settings, frozen=True, kw_only=True):
    """`"x,y, x,y"`; `in` is to the right of a walk from the first to the second point."""

    coordinates: str


class Camera(Settings, frozen=True, kw_only=True):
    source: str | Mapping[str, str]  # an address, or its url, username and password
    detect: Detect = Detect()
    zones: Mapping[Name, Zone] = {}
    lines: Mapping[Name, Line] = {}


class Microphone(Settings, frozen=True, kw_only=True):
    source: str | Mapping[str, str]
    track: Annotated[int, Meta(ge=1, le=64)] | None = (
        None  # of several sound tracks; else the first
    )


class Windows(Settings, frozen=True, kw_only=True):
    """Window i is `[i*hop, i*hop+size)`; no state reaches further back than `horizon`."""

    size: Seconds = 4
    hop: Seconds = 1
    horizon: Annotated[float, Meta(ge=10, le=3600)] = 120
    patience: Annotated[float, Meta(ge=10, le=86400)] = 900  # s; a slower source is declared lost


class Incidents(Settings, frozen=True, kw_only=True):
    """An incident closes `close_after` its last evidence, and is split after `max_duration`."""

    close_after: Annotated[float, Meta(ge=1, le=10)] = 10
    max_duration: Annotated[float, Meta(ge=30, le=86400)] = 600
    lost_after: Seconds = 10  # a source that is lost for this long causes a `system` alert


class Stationary(Settings, frozen=True, kw_only=True):
    """An object is stationary if it moved less than `distance` (of its height) in `after` s."""

    after: Seconds = 60
    distance: Annotated[float, Meta(gt=0, le=2)] = 0.25


class Fusion(Settings, frozen=True, kw_only=True):
    """The head that judges windows beside the rules: `shipped`, a folder from `fusewatch
    train`, or `rules`: the noisy-or alone, which always runs. Short form in a config:
    `fusion: rules` for `fusion: {head: rules}`."""

    head: str = "shipped"
    threshold: Fraction | None = None  # of both; None: the head's own, and 0.8 of the noisy-or
    severity: Severity = "high"  # of the head's anomalies


class Site(Settings, frozen=True, kw_only=True):
    timezone: str = "UTC"
    cameras: Mapping[Name, Camera] = {}
    microphones: Mapping[Name, Microphone] = {}
    rules: tuple[Rule, ...] = ()
    windows: Windows = Windows()
    incidents: Incidents = Incidents()
    stationary: Stationary = Stationary()
    fusion: Fusion = Fusion()


class Destination(Settings, frozen=True, kw_only=True):
    """Who gets alerts."""

    sites: tuple[str, ...] = ()  # none: all


class Webhook(Destination, frozen=True, kw_only=True):
    """A subscriber. Literal private or loopback addresses are allowed; a host *name* that
    resolves to one needs `allow_networks`, and plain http to a public one needs `allow_http`."""

    url: str
    secret: str | tuple[str, ...]  # "whsec_...", "${ENV}" or "file:..."; several while rotating
    name: OwnName = ""  # identifies its position in the log; default: host and hash of the url
    min_severity: Severity = "low"
    allow_http: bool = False
    allow_networks: tuple[str, ...] = ()
    timeout: Seconds = 20


class Jsonl(Destination, frozen=True, kw_only=True):
    """A file that receives alerts as JSON lines."""

    path: str


class Model(Settings, frozen=True, kw_only=True):
    """The adapter and weights of a model; `weights` is a registered name or a path."""

    kind: str
    weights: str
    providers: tuple[str, ...] = ("cpu",)
    threads: Annotated[int, Meta(ge=0, le=64)] = 0  # 0: as many as there are cores


class Models(Settings, frozen=True, kw_only=True):
    detector: Model = Model(kind="yolox", weights="yolox_nano")
    speech: Model = Model(kind="faster-whisper", weights="faster-whisper-tiny.en")
    sound: Model = Model(kind="yamnet", weights="yamnet")
    text: Model = Model(kind="minilm", weights="all-MiniLM-L6-v2-int8")


class LocalBus(Settings, tag_field="kind", tag="local", frozen=True, kw_only=True):
    """The local log in the state folder."""

    max_message: MaxMessage = 8_000_000
    stall: Seconds = 120  # a stage that has work, and moves nothing for so long, ends the process


class Sasl(Settings, frozen=True, kw_only=True):
    """The credentials for the brokers."""

    mechanism: Annotated[str, Meta(pattern=r"^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)\Z")]
    username: str
    password: str  # `${ENV}` or `file:PATH`


class Tls(Settings, frozen=True, kw_only=True):
    """Encryption to the brokers, whose certificates are always verified; paths of PEM files."""

    ca: str = ""  # default: the system's authorities
    cert: str = ""  # our client certificate, if the brokers require one
    key: str = ""


class Partitions(Settings, frozen=True, kw_only=True):
    """The number of partitions of each topic, which limits the workers that can share it."""

    frames: Partitioned = 12
    audio: Partitioned = 6
    reports: Partitioned = 3
    observations: Partitioned = 6
    anomalies: Partitioned = 6
    alerts: Partitioned = 3


class KafkaBus(Settings, tag_field="kind", tag="kafka", frozen=True, kw_only=True):
    """Apache Kafka, for `fusewatch worker`; docs/explanations/scaling.md explains the sizing."""

    brokers: Annotated[tuple[str, ...], Meta(min_length=1)]  # host:port
    prefix: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}\Z", description=NAME)] = (
        "fusewatch"
    )
    tls: Tls | None = None
    sasl: Sasl | None = None
    replication: Annotated[int, Meta(ge=1, le=9)] = 3
    min_insync: Annotated[int, Meta(ge=1, le=9)] = 2
    partitions: Partitions = Partitions()
    max_message: MaxMessage = 1_000_000
    spool: str = "2 GB"  # what capture stores on disk while the brokers do not answer
    absent: Annotated[float, Meta(ge=15, le=86400)] = 15  # s without a heartbeat: capture is lost
    stall: Seconds = 120  # a worker exits after this time with a backlog and no progress


class Storage(Settings, frozen=True, kw_only=True):
    cap: str = "20 GB"  # everything below the state folder
    frames: Seconds = 900  # seconds of raw chunks kept for evidence


class Api(Settings, frozen=True, kw_only=True):
    """The local endpoint for reports; loopback only."""

    listen: str = "127.0.0.1:8674"
    token: str = ""  # default: the file `token` in the state folder, which `init` or `run` makes


class Config(Settings, frozen=True, kw_only=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    sites: Mapping[Name, Site]
    state: str = "~/.local/state/fusewatch"
    bus: LocalBus | KafkaBus = LocalBus()
    storage: Storage = Storage()
    webhooks: tuple[Webhook, ...] = ()
    jsonl: tuple[Jsonl, ...] = ()
    models: Models = Models()
    api: Api = Api()

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
