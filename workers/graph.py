"""The graph: which stage reads which topic. A new sensor, model or stage is a line here.

frames.v1 --vision--+
audio.v1 ---sound---+--> observations.v1 --fusion--> anomalies.v1 --alert--> alerts.v1
audio.v1 ---speech--+                                                          |
reports.v1 --text---+                                      delivery, jsonl, evidence
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from models import weights
from models.language.keywords import Keywords
from models.language.text import packed
from models.registry import REGISTRY
from pipeline import topics
from pipeline.config import schema
from pipeline.config.schedule import Schedule
from pipeline.config.schema import Config, Site
from pipeline.errors import ConfigError, WeightsError
from pipeline.judge.incident import Timing
from pipeline.judge.rules import (
    Crossed,
    Crowd,
    Heard,
    InZone,
    Loitering,
    Meant,
    Place,
    Said,
    SeesRule,
)
from pipeline.ports import Model, Stage
from pipeline.types import ns
from pipeline.zones import Line, LineCounter, Polygon
from workers.delivery.snapshots import evidence_names
from workers.runtime.status import Status
from workers.stages.alert import AlertStage
from workers.stages.fusion import FusionStage
from workers.stages.site_state import RULES, Head, SitePlan
from workers.stages.sound import SoundStage
from workers.stages.speech import SpeechStage
from workers.stages.text import TextStage
from workers.stages.vision import Policy, VisionStage

RECORDED_THREADS = 2
SHIPPED = "shipped"  # the head that comes with Fusewatch
FUSED = 0.8  # probability from which evidence of several rules together is an anomaly
LIMIT, MOST = 64, 512  # entries a poll; MOST frames are some 50 MB
NEEDS: Mapping[str, tuple[str, ...]] = {  # stage, in the order that records flow -> its encoders
    "vision": ("detector",),
    "sound": ("sound", "sound_head"),
    "speech": ("voice", "speech", "text"),
    "text": ("text",),
    "fusion": ("text",),  # for the phrases of rules
    "alert": (),
}
STAGES = tuple(NEEDS)
POLICY: Mapping[bool, Policy] = {False: "newest", True: "all"}  # by whether it is a recording


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One stage in the graph; `name` is its consumer group too, `limit` its largest poll."""

    name: str
    topic: str
    out: str
    stage: Stage
    limit: int = LIMIT


class Encoders(msgspec.Struct, frozen=True, kw_only=True):
    """The models, loaded: they know no time and no site, so scenes and stages share them."""

    detector: Model
    sound: Model
    sound_head: Callable[..., Mapping[str, float]]
    voice: Model
    speech: Model
    text: Model


def load(
    settings: schema.Models, *, recorded: bool = False, stages: Sequence[str] = STAGES
) -> Encoders:
    """Load the models of `stages` that the config names; raises WeightsError or ConfigError.

    `recorded` fixes the number of threads where the config leaves it open, so that a replay gives
    the same bytes on every machine.
    """
    if recorded:
        settings = _fixed(settings)
    wanted = {name for stage in stages for name in NEEDS[stage]}
    made: dict[str, Any] = {
        name: _made(name, settings) if name in wanted else _absent(name)
        for name in Encoders.__struct_fields__
    }
    return Encoders(**made)


def _made(name: str, settings: schema.Models) -> object:
    match name:
        case "detector":
            return _detector(settings.detector)
        case "sound":
            from models.hearing.sound import Yamnet

            return Yamnet(_folder(settings.sound), threads=settings.sound.threads)
        case "sound_head":
            from models.hearing.sound import SoundHead

            return SoundHead.shipped()
        case "voice":
            from models.hearing.voice_activity import Voice

            return Voice()
        case "speech":
            return _speech(settings.speech)
        case _:
            return _text(settings.text)


def _absent(name: str) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        msg = f"{name} was not loaded: no stage of this process was said to need it"
        raise RuntimeError(msg)

    return call


def _fixed(settings: schema.Models) -> schema.Models:
    """The same models with `RECORDED_THREADS` where the number of threads is left open."""
    fixed = {
        name: msgspec.structs.replace(model, threads=RECORDED_THREADS)
        for name in settings.__struct_fields__
        if not (model := getattr(settings, name)).threads
    }
    return msgspec.structs.replace(settings, **fixed)


def _detector(model: schema.Model) -> Model:
    path = _folder(model)
    match model.kind:
        case "onnx" | "yolox":
            from models.vision.detector import Detector

            return Detector(_onnx(path), providers=model.providers, threads=model.threads)
        case "ultralytics":
            from models.vision.ultralytics_detector import UltralyticsDetector

            return UltralyticsDetector(path, providers=model.providers, threads=model.threads)
    msg = "detector"
    raise _unknown(msg, model.kind, ("yolox", "onnx", "ultralytics"))


def _onnx(path: Path) -> Path:
    """The one ONNX file of a folder of weights, or the file itself."""
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if len(files) != 1:
        msg = f"models.detector.weights: {path} holds {len(files)} .onnx files: name the one to use"
        raise ConfigError(msg)
    return files[0]


def _speech(model: schema.Model) -> Model:
    (device,) = model.providers  # `cpu` or `cuda`: the check has seen to it
    match model.kind:
        case "faster-whisper":
            from models.hearing.speech import FasterWhisper

            return FasterWhisper(
                _folder(model),
                threads=model.threads,
                device=device,
                compute_type="float16" if device == "cuda" else "int8",
            )
        case "openai-whisper":
            from models.hearing.openai_speech import OpenAIWhisper

            return OpenAIWhisper(_folder(model), threads=model.threads, device=device)
    msg = "speech"
    raise _unknown(msg, model.kind, ("faster-whisper", "openai-whisper"))


def _text(model: schema.Model) -> Model:
    from models.language.text import TextEncoder

    return TextEncoder(_folder(model), providers=model.providers, threads=model.threads)


def _folder(model: schema.Model) -> Path:
    if model.weights in REGISTRY:
        return weights.find(model.weights)
    given = Path(model.weights).expanduser()
    if not given.exists():
        known = ", ".join(sorted(REGISTRY))
        msg = f"weights {model.weights!r}: no such file, and not one of {known}"
        raise ConfigError(msg)
    return given


def _unknown(what: str, kind: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(f"models.{what}.kind: no adapter {kind!r}; there are {', '.join(known)}")


def nodes(
    settings: Config,
    encoders: Encoders,
    status: Status,
    *,
    recorded: bool,
    stages: Sequence[str] = STAGES,
    judges: Mapping[str, Head] | None = None,
) -> Iterator[Node]:
    """The stages of the graph, or those that are named, in the order that records flow.

    `recorded`: the input is a scene; every frame counts and a lost source is part of the recording.
    `judges`: heads by site, in place of those that the config names.
    """
    for name in STAGES:
        if name not in stages:
            continue
        if name == "fusion":
            chosen = heads(settings) if judges is None else judges
            yield _fusion(settings, encoders, chosen, recorded=recorded)
        else:
            yield _node(name, settings, encoders, status, recorded=recorded)


def _fusion(
    settings: Config, encoders: Encoders, judges: Mapping[str, Head], *, recorded: bool
) -> Node:
    plans = {
        name: site_plan(site, encoders.text, recorded=recorded)
        for name, site in settings.sites.items()
    }
    return Node(
        name="fusion",
        topic=topics.OBSERVATIONS,
        out=topics.ANOMALIES,
        stage=FusionStage(plans, judges),
    )


def _node(
    name: str, settings: Config, encoders: Encoders, status: Status, *, recorded: bool
) -> Node:
    heard = {(name, room) for name, site in settings.sites.items() for room in site.microphones}
    stage: Stage
    out, limit = topics.OBSERVATIONS, LIMIT
    match name:
        case "vision":
            topic, policy = topics.FRAMES, POLICY[recorded]
            if not recorded:  # with several frames of each camera in a poll, some can be let go
                cameras = sum(len(site.cameras) for site in settings.sites.values())
                limit = min(max(LIMIT, 4 * cameras), MOST)
            stage = VisionStage(encoders.detector, policy=policy, status=status)
        case "sound":
            topic = topics.AUDIO
            stage = SoundStage(encoders.sound, encoders.sound_head, status, heard)
        case "speech":
            topic = topics.AUDIO
            stage = SpeechStage(encoders.voice, encoders.speech, encoders.text, status, heard)
        case "text":
            topic, stage = topics.REPORTS, TextStage(encoders.text)
        case _:
            topic, out, stage = topics.ANOMALIES, topics.ALERTS, _alert(settings)
    return Node(name=name, topic=topic, out=out, stage=stage, limit=limit)


def _alert(settings: Config) -> AlertStage:
    cameras = {name: tuple(site.cameras) for name, site in settings.sites.items()}
    return AlertStage(
        {name: timing(site) for name, site in settings.sites.items()},
        lambda site, alert, revision: evidence_names(site, alert, revision, cameras.get(site, ())),
    )


def heads(settings: Config) -> dict[str, Head]:
    """The learned head of each site that has one; sites of one head share it.

    Raises WeightsError for a head that cannot be used, which names the site's setting.
    """
    named = {name: site.fusion.head for name, site in settings.sites.items()}
    loaded: dict[str, Head] = {}
    for name, head in named.items():
        if head != RULES and head not in loaded:
            try:
                loaded[head] = learned(head)
            except WeightsError as error:
                msg = f"sites.{name}.fusion.head: {error}"
                raise WeightsError(msg) from error
    return {name: loaded[head] for name, head in named.items() if head != RULES}


def learned(head: str) -> Head:
    """The learned head that a config names; raises WeightsError."""
    from models.fusion.learned_head import Learned

    return Learned.shipped() if head == SHIPPED else Learned.read(Path(head))


def timing(site: Site) -> Timing:
    """When incidents of a site end."""
    return Timing(
        close_after=ns(site.incidents.close_after), max_duration=ns(site.incidents.max_duration)
    )


def site_plan(site: Site, text: Model, *, recorded: bool) -> SitePlan:
    """What fusion knows of a site; the phrases of its rules are embedded here, once."""
    named = tuple(zip(schema.rule_names(site), site.rules, strict=True))
    timezone = ZoneInfo(site.timezone)
    return SitePlan(
        size=ns(site.windows.size),
        hop=ns(site.windows.hop),
        horizon=ns(site.windows.horizon),
        patience=None if recorded else ns(site.windows.patience),
        lost_after=None if recorded else ns(site.incidents.lost_after),
        cry_every=ns(site.incidents.close_after) // 2,
        still_after=ns(site.stationary.after),
        still_distance=site.stationary.distance,
        threshold=FUSED if site.fusion.threshold is None else site.fusion.threshold,
        learned=site.fusion.threshold,
        severity=site.fusion.severity,
        zones={
            name: [Polygon.parse(zone.coordinates) for zone in camera.zones.values()]
            for name, camera in site.cameras.items()
        },
        cameras={name: camera.detect for name, camera in site.cameras.items()},
        sees=lambda: [made for name, rule in named for made in _sees(name, rule, site, timezone)],
        hears=[
            Heard(name, rule, Schedule.parse(rule.schedule), timezone)
            for name, rule in named
            if isinstance(rule, schema.SoundRule)
        ],
        reads=[made for name, rule in named for made in _reads(name, rule, text)],
    )


def _sees(name: str, rule: schema.Rule, site: Site, timezone: ZoneInfo) -> Iterator[SeesRule]:
    match rule:
        case schema.ZoneRule():
            for place in _places(rule, site, timezone, rule.min_score):
                yield InZone(name, rule, place)
        case schema.LoiteringRule():
            for place in _places(rule, site, timezone):
                yield Loitering(name, rule, place)
        case schema.CrowdRule():
            for place in _places(rule, site, timezone):
                yield Crowd(name, rule, place)
        case schema.LineRule():
            keep = ns(site.windows.horizon)
            lines = {
                camera: LineCounter(
                    Line.parse(of.lines[rule.line].coordinates), rule.hysteresis, keep
                )
                for camera, of in site.cameras.items()
                if rule.line in of.lines
            }
            place = Place(
                zones={},
                objects=frozenset(rule.objects),
                schedule=Schedule.parse(rule.schedule),
                timezone=timezone,
            )
            yield Crossed(name, rule, place, lines)


def _places(
    rule: schema.ZoneRule | schema.LoiteringRule | schema.CrowdRule,
    site: Site,
    timezone: ZoneInfo,
    min_score: float = 0.0,
) -> Iterator[Place]:
    """The rule's zone at each camera that has it: the objects may differ from one to the next."""
    for camera, of in site.cameras.items():
        if rule.zone in of.zones:
            zone = of.zones[rule.zone]
            yield Place(
                zones={camera: Polygon.parse(zone.coordinates)},
                objects=frozenset(rule.objects or zone.objects),
                schedule=Schedule.parse(rule.schedule),
                timezone=timezone,
                min_score=min_score,
            )


def _reads(name: str, rule: schema.Rule, text: Model) -> Iterator[Said | Meant]:
    match rule:
        case schema.KeywordRule():
            yield Said(name, rule, Keywords(rule.words))
        case schema.PhraseRule():
            vectors = zip(rule.phrases, text(rule.phrases), strict=True)
            yield Meant(name, rule, {phrase: packed(vector) for phrase, vector in vectors})
