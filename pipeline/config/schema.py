"""The config as types: complete, frozen, never repaired.

`workers/config/loader.py` reads YAML into these types and reports file and line. Checks that need
more than one field are in `pipeline/config/checks.py`, which changes nothing. Names follow the
config files of common NVRs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, count
from typing import Annotated

import msgspec
from msgspec import Meta

_HIDDEN = frozenset({"source", "url", "secret", "token", "password"})
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .-]{0,39}")
_NAME = "up to 40 small letters, digits, `-` and `_`, and begin with a letter or digit"
_LABEL = "up to 40 small letters, digits, spaces, `-` and `_`, and begin with a letter or digit"

Fraction = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}\Z", description=_NAME)]
OwnName = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9_-]{0,39})?\Z", description=_NAME)]
Label = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_ -]{0,39}\Z", description=_LABEL)]
Severity = Annotated[str, Meta(pattern=r"^(low|medium|high|critical)\Z")]
# Bytes of one record. An alert may carry 20 reasons and 20 lines of transcript, of 16 kB each.
MaxMessage = Annotated[int, Meta(ge=750_000, le=2**26)]
Partitioned = Annotated[int, Meta(ge=1, le=1000)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Text = Annotated[str, Meta(min_length=1, max_length=200, description="1 to 200 characters")]

SEVERITIES = ("low", "medium", "high", "critical")
SOUNDS = ("gunshot", "explosion", "glass", "scream", "siren")
OBJECTS = (  # the 80 classes of COCO, in the order of the detectors' outputs
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
    *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
PROVIDERS = {  # provider -> its name in ONNX Runtime
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
LANGUAGES = {  # language code -> the name of its stemmer in snowballstemmer 2.2
    **{"ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek"},
    **{"en": "english", "es": "spanish", "eu": "basque", "fi": "finnish", "fr": "french"},
    **{"ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian"},
    **{"it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian"},
    **{"pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish"},
    **{"ta": "tamil", "tr": "turkish", "yi": "yiddish"},
}


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all settings: frozen; unknown keys are refused; `repr` hides possible secrets."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in _HIDDEN else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class Detect(_Settings, frozen=True, kw_only=True):
    """How a camera's frames are analysed; heights are fractions of the frame."""

    fps: Annotated[float, Meta(gt=0, le=60)] = 5
    width: Annotated[int, Meta(ge=64, le=3840)] = 640  # px; longest side of the published JPEG
    min_score: Fraction = 0.4
    min_height: Fraction = 0.0


class Zone(_Settings, frozen=True, kw_only=True):
    """A polygon `"x,y, x,y, x,y"` in fractions of the frame; an object is in it if its feet are."""

    coordinates: str
    objects: tuple[str, ...] = ("person",)


class Line(_Settings, frozen=True, kw_only=True):
    """`"x,y, x,y"`; `in` is to the right of a walk from the first to the second point."""

    coordinates: str


class Camera(_Settings, frozen=True, kw_only=True):
    source: str | Mapping[str, str]  # an address, or its url, username and password
    detect: Detect = Detect()
    zones: Mapping[Name, Zone] = {}
    lines: Mapping[Name, Line] = {}


class Microphone(_Settings, frozen=True, kw_only=True):
    source: str | Mapping[str, str]


class _Rule(_Settings, tag_field="rule", frozen=True, kw_only=True):
    name: OwnName = ""  # default: made of the rule's kind and its subject
    severity: Severity = "medium"


class ZoneRule(_Rule, tag="zone", frozen=True, kw_only=True):
    """An object is in a zone while the schedule (site's time zone) holds."""

    zone: str
    objects: tuple[str, ...] = ()  # none: those of the zone, camera by camera
    schedule: str = ""  # "22:00-06:00", several with commas, days before: "mon-fri 22:00-06:00"
    min_score: Fraction = 0.0
    label: Label = "intrusion"


class LoiteringRule(_Rule, tag="loitering", frozen=True, kw_only=True):
    """An object stays in a zone for `seconds`."""

    zone: str
    seconds: Seconds
    objects: tuple[str, ...] = ()  # none: those of the zone, camera by camera
    schedule: str = ""
    label: Label = "loitering"


class LineRule(_Rule, tag="line", frozen=True, kw_only=True):
    """An object crosses a line; to count, it must leave the line by `hysteresis` of the frame."""

    line: str
    direction: Annotated[str, Meta(pattern=r"^(in|out|both)\Z")] = "both"
    objects: tuple[str, ...] = ("person",)
    schedule: str = ""
    hysteresis: Fraction = 0.02
    label: Label = "line-crossed"


class CrowdRule(_Rule, tag="crowd", frozen=True, kw_only=True):
    """At least `count` objects are in a zone for `seconds`."""

    zone: str
    count: Annotated[int, Meta(ge=1, le=1000)]
    seconds: Seconds = 2
    objects: tuple[str, ...] = ()  # none: those of the zone, camera by camera
    schedule: str = ""
    label: Label = "crowd"


class SoundRule(_Rule, tag="sound", frozen=True, kw_only=True):
    """A sound reaches its label's threshold (calibrated probability); it labels the alert."""

    labels: Mapping[Label, Fraction]
    schedule: str = ""


class KeywordRule(_Rule, tag="keyword", frozen=True, kw_only=True):
    """A word (stemmed, by language) is spoken or reported; `"he has a gun"` is a word too."""

    words: Mapping[str, tuple[Text, ...]]  # language code -> words and phrases
    on: tuple[str, ...] = ("speech", "report")
    min_confidence: Fraction = 0.4
    label: Label = "keyword"


class PhraseRule(_Rule, tag="phrase", frozen=True, kw_only=True):
    """A report has about the meaning of one of the phrases (cosine of sentence embeddings)."""

    phrases: tuple[Text, ...]
    min_similarity: Fraction = 0.55
    on: tuple[str, ...] = ("report",)
    label: Label = "report"


Rule = ZoneRule | LoiteringRule | LineRule | CrowdRule | SoundRule | KeywordRule | PhraseRule


class Windows(_Settings, frozen=True, kw_only=True):
    """Window i is `[i*hop, i*hop+size)`; no state reaches further back than `horizon`."""

    size: Seconds = 4
    hop: Seconds = 1
    horizon: Annotated[float, Meta(ge=10, le=3600)] = 120
    patience: Annotated[float, Meta(ge=10, le=86400)] = 900  # s; a slower source is declared lost


class Incidents(_Settings, frozen=True, kw_only=True):
    """An incident closes `close_after` its last evidence, and is split after `max_duration`."""

    close_after: Annotated[float, Meta(ge=1, le=10)] = 10
    max_duration: Annotated[float, Meta(ge=30, le=86400)] = 600
    lost_after: Seconds = 10  # a source that is lost for this long causes a `system` alert


class Stationary(_Settings, frozen=True, kw_only=True):
    """An object is stationary if it moved less than `distance` (of its height) in `after` s."""

    after: Seconds = 60
    distance: Annotated[float, Meta(gt=0, le=2)] = 0.25


class Fusion(_Settings, frozen=True, kw_only=True):
    """The head that judges windows beside the rules: `shipped`, a folder from `fusewatch
    train`, or `rules`: the noisy-or alone, which always runs. Short form in a config:
    `fusion: rules` for `fusion: {head: rules}`."""

    head: str = "shipped"
    threshold: Fraction | None = None  # of both; None: the head's own, and 0.8 of the noisy-or
    severity: Severity = "high"  # of the head's anomalies


class Site(_Settings, frozen=True, kw_only=True):
    timezone: str = "UTC"
    cameras: Mapping[Name, Camera] = {}
    microphones: Mapping[Name, Microphone] = {}
    rules: tuple[Rule, ...] = ()
    windows: Windows = Windows()
    incidents: Incidents = Incidents()
    stationary: Stationary = Stationary()
    fusion: Fusion = Fusion()


class Webhook(_Settings, frozen=True, kw_only=True):
    """A subscriber. Literal private or loopback addresses are allowed; a host *name* that
    resolves to one needs `allow_networks`, and plain http to a public one needs `allow_http`."""

    url: str
    secret: str | tuple[str, ...]  # "whsec_...", "${ENV}" or "file:..."; several while rotating
    name: OwnName = ""  # identifies its position in the log; default: host and hash of the url
    sites: tuple[str, ...] = ()  # none: all
    min_severity: Severity = "low"
    allow_http: bool = False
    allow_networks: tuple[str, ...] = ()
    timeout: Seconds = 20


class Jsonl(_Settings, frozen=True, kw_only=True):
    """A file that receives alerts as JSON lines."""

    path: str
    sites: tuple[str, ...] = ()


class Model(_Settings, frozen=True, kw_only=True):
    """The adapter and weights of a model; `weights` is a registered name or a path."""

    kind: str
    weights: str
    providers: tuple[str, ...] = ("cpu",)
    threads: Annotated[int, Meta(ge=0, le=64)] = 0  # 0: as many as there are cores


class Models(_Settings, frozen=True, kw_only=True):
    detector: Model = Model(kind="yolox", weights="yolox_nano")
    speech: Model = Model(kind="faster-whisper", weights="faster-whisper-tiny.en")
    sound: Model = Model(kind="yamnet", weights="yamnet")
    text: Model = Model(kind="minilm", weights="all-MiniLM-L6-v2-int8")


class LocalBus(_Settings, tag_field="kind", tag="local", frozen=True, kw_only=True):
    """The local log in the state folder."""

    max_message: MaxMessage = 8_000_000


class Sasl(_Settings, frozen=True, kw_only=True):
    """The credentials for the brokers."""

    mechanism: Annotated[str, Meta(pattern=r"^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)\Z")]
    username: str
    password: str  # `${ENV}` or `file:PATH`


class Tls(_Settings, frozen=True, kw_only=True):
    """Encryption to the brokers, whose certificates are always verified; paths of PEM files."""

    ca: str = ""  # default: the system's authorities
    cert: str = ""  # our client certificate, if the brokers require one
    key: str = ""


class Partitions(_Settings, frozen=True, kw_only=True):
    """The number of partitions of each topic, which limits the workers that can share it."""

    frames: Partitioned = 12
    audio: Partitioned = 6
    reports: Partitioned = 3
    observations: Partitioned = 6
    anomalies: Partitioned = 6
    alerts: Partitioned = 3


class KafkaBus(_Settings, tag_field="kind", tag="kafka", frozen=True, kw_only=True):
    """Apache Kafka, for `fusewatch worker`; docs/scaling.md explains the sizing."""

    brokers: Annotated[tuple[str, ...], Meta(min_length=1)]  # host:port
    prefix: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}\Z", description=_NAME)] = (
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


class Storage(_Settings, frozen=True, kw_only=True):
    cap: str = "20 GB"  # everything below the state folder
    frames: Seconds = 900  # seconds of raw chunks kept for evidence


class Api(_Settings, frozen=True, kw_only=True):
    """The local endpoint for reports; loopback only."""

    listen: str = "127.0.0.1:8674"
    token: str = ""  # default: the file `token` in the state folder, which `init` or `run` makes


class Config(_Settings, frozen=True, kw_only=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    sites: Mapping[Name, Site]
    state: str = "~/.local/state/fusewatch"
    bus: LocalBus | KafkaBus = LocalBus()
    storage: Storage = Storage()
    webhooks: tuple[Webhook, ...] = ()
    jsonl: tuple[Jsonl, ...] = ()
    models: Models = Models()
    api: Api = Api()


class Problem(msgspec.Struct, frozen=True):
    """One problem; `path` leads to the value: `("sites", "office", "rules", 0, "zone")`."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        """`sites.office.rules[0].zone: what is wrong`; hides a step that is not a plain word."""
        way = ""
        for step in self.path:
            if isinstance(step, int):
                way += f"[{step}]"
            else:
                way += ("." if way else "") + (step if WORD.fullmatch(step) else "(not a word)")
        return f"{way}: {self.message}" if way else self.message


def rule_names(site: Site) -> tuple[str, ...]:
    """Returns a name for each rule of the site, in order: its own, or its kind and subject.

    Examples: `zone-floor`, `line-door`, `sound`; the second of a kind is `sound-2`. Names are part
    of anomaly ids, so a rule inserted before an unnamed rule may rename the latter.
    """
    taken = {rule.name for rule in site.rules}
    names = []
    for rule in site.rules:
        name = rule.name or _free(_about(rule), taken)
        taken.add(name)
        names.append(name)
    return tuple(names)


def _about(rule: Rule) -> str:
    kind = str(rule.__struct_config__.tag)
    match rule:
        case ZoneRule() | LoiteringRule() | CrowdRule():
            return f"{kind}-{rule.zone}"
        case LineRule():
            return f"{kind}-{rule.line}"
        case _:
            return kind


def _free(name: str, taken: set[str]) -> str:
    numbered = (f"{name}-{i}" for i in count(2))
    return next(each for each in chain((name,), numbered) if each not in taken)


def size_bytes(text: str) -> int:
    """Returns the bytes of `"20 GB"` (decimal) or `"512 MiB"` (binary); raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([KMGT]i?)?B", text)
    if found is None:
        msg = "must be a number and a unit, like 500 MB or 20 GB"
        raise ValueError(msg)
    unit = found[2] or ""
    step = 1024 if unit.endswith("i") else 1000
    return int(float(found[1]) * step ** ("KMGT".index(unit[0]) + 1 if unit else 0))
