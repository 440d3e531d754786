"""The page docs/reference/config.md, made of the types in pipeline/config."""

from __future__ import annotations

from typing import NamedTuple, get_args

import msgspec

from docs.generate.fields import NOTE, FieldDoc, about, fields, table, wrapped
from pipeline.config import schema
from pipeline.config.fields import LANGUAGES
from pipeline.config.rule_kinds import Rule

HEAD = """\
# Config reference

Every setting of the config file: its type, range, unit, default and meaning. To write a config step by step, read
[Write a config](../guides/config.md). `fusewatch check FILE` lists every mistake in a file, each with its line.

The file is strict YAML. An unknown key, a duplicate key or a value out of range is refused. Tags, anchors and aliases
are not allowed. A file has at most 1 MB and 32 levels. A *name* has up to 40 small letters, digits, `-` and `_`, and
begins with a letter or digit. A *fraction* goes from 0 to 1. `required` in the column *default* means that the key must
be there.
"""


class Section(NamedTuple):
    """One struct: where it stands in a config, an example, and the way to it in the example."""

    cls: type
    place: str
    example: str
    way: tuple[str | int, ...]


SECTIONS = (
    Section(
        schema.Config,
        "",
        "version: 1\nsites:\n  home:\n    cameras:\n      webcam: {source: 'device:0'}\n",
        (),
    ),
    Section(
        schema.Site,
        "sites.NAME",
        "sites:\n  office:\n    timezone: Europe/Berlin\n"
        "    cameras: {desk: {source: 'rtsp://10.0.0.5/live'}}\n"
        "    rules: [{rule: sound, labels: {glass: 0.5}}]\n",
        ("sites", "office"),
    ),
    Section(
        schema.Camera,
        "sites.NAME.cameras.NAME",
        "cameras:\n  desk:\n"
        "    source: {url: 'rtsp://10.0.0.5/live', username: ops, password: '${DESK_PASSWORD}'}\n"
        "    detect: {fps: 5}\n"
        "    zones: {floor: {coordinates: '0,0, 1,0, 1,1, 0,1'}}\n",
        ("cameras", "desk"),
    ),
    Section(
        schema.Streams,
        "sites.NAME.cameras.NAME.streams",
        "streams:\n  detect: {url: 'rtsp://10.0.0.5/sub', username: ops, password: '${DESK_PASSWORD}'}\n"
        "  record: {url: 'rtsp://10.0.0.5/main', username: ops, password: '${DESK_PASSWORD}'}\n",
        ("streams",),
    ),
    Section(
        schema.Detect,
        "sites.NAME.cameras.NAME.detect",
        "detect: {fps: 2, width: 1280, min_height: 0.1}\n",
        ("detect",),
    ),
    Section(
        schema.Zone,
        "sites.NAME.cameras.NAME.zones.NAME",
        "zones:\n  door: {coordinates: '0.2,0.3, 0.6,0.3, 0.6,1, 0.2,1', objects: [person, dog]}\n",
        ("zones", "door"),
    ),
    Section(
        schema.Line,
        "sites.NAME.cameras.NAME.lines.NAME",
        "lines:\n  fence: {coordinates: '0,0.5, 1,0.5'}\n",
        ("lines", "fence"),
    ),
    Section(
        schema.Microphone,
        "sites.NAME.microphones.NAME",
        "microphones:\n  room: {source: 'device:default'}\n",
        ("microphones", "room"),
    ),
    Section(schema.Hear, "sites.NAME.microphones.NAME.hear", "hear: {gate: 'off'}\n", ("hear",)),
    Section(schema.Windows, "sites.NAME.windows", "windows: {size: 4, hop: 1}\n", ("windows",)),
    Section(
        schema.Incidents,
        "sites.NAME.incidents",
        "incidents: {close_after: 5, lost_after: 30}\n",
        ("incidents",),
    ),
    Section(
        schema.Modes,
        "sites.NAME.modes",
        "modes:\n  default: disarmed\n  schedule: {armed: 'mon-fri 18:00-08:00'}\n",
        ("modes",),
    ),
    Section(
        schema.Stationary,
        "sites.NAME.stationary",
        "stationary: {after: 120}\n",
        ("stationary",),
    ),
    Section(
        schema.Fusion,
        "sites.NAME.fusion",
        "fusion: {head: heads/mine, threshold: 0.9}\n",
        ("fusion",),
    ),
    Section(
        schema.Webhook,
        "webhooks[]",
        "webhooks:\n  - name: siem\n    url: https://siem.example/hooks/fusewatch\n"
        "    secret: file:/run/secrets/siem\n    min_severity: high\n",
        ("webhooks", 0),
    ),
    Section(schema.Jsonl, "jsonl[]", "jsonl:\n  - {path: /var/log/alerts.jsonl}\n", ("jsonl", 0)),
    Section(schema.Storage, "storage", "storage: {cap: 50 GB, frames: 1800}\n", ("storage",)),
    Section(
        schema.Recording,
        "recording",
        "recording: {keep: 100 GB, around: always}\n",
        ("recording",),
    ),
    Section(schema.Api, "api", "api: {listen: '127.0.0.1:8674'}\n", ("api",)),
    Section(
        schema.Models,
        "models",
        "models:\n  detector: {kind: yolox, weights: yolox_nano, threads: 1}\n",
        ("models",),
    ),
    Section(
        schema.Model,
        "models.detector, .speech, .sound and .text",
        "detector: {kind: onnx, weights: my.onnx, providers: [cuda, cpu]}\n",
        ("detector",),
    ),
    Section(schema.LocalBus, "bus, kind: local", "bus: {kind: local, stall: 300}\n", ("bus",)),
    Section(
        schema.KafkaBus,
        "bus, kind: kafka",
        "bus:\n  kind: kafka\n  brokers: ['kafka-1:9093', 'kafka-2:9093', 'kafka-3:9093']\n"
        "  tls: {ca: /etc/fusewatch/ca.pem}\n",
        ("bus",),
    ),
    Section(schema.Tls, "bus.tls", "tls: {ca: /etc/fusewatch/ca.pem}\n", ("tls",)),
    Section(
        schema.Sasl,
        "bus.sasl",
        "sasl: {mechanism: SCRAM-SHA-512, username: fusewatch, password: 'file:/run/secrets/kafka'}\n",
        ("sasl",),
    ),
    Section(
        schema.Partitions,
        "bus.partitions",
        "partitions: {frames: 24, observations: 12}\n",
        ("partitions",),
    ),
)

RULES = {  # kind -> an example
    "zone": "{rule: zone, zone: floor, schedule: '22:00-06:00', severity: high}",
    "loitering": "{rule: loitering, zone: door, seconds: 30}",
    "line": "{rule: line, line: fence, direction: in}",
    "crowd": "{rule: crowd, zone: hall, count: 10, seconds: 5}",
    "behaviour": "{rule: behaviour, labels: {fall: 0.5, lying: 0.5}, zone: floor, severity: high}",
    "sound": "{rule: sound, labels: {gunshot: 0.5, glass: 0.5}, severity: critical}",
    "keyword": "{rule: keyword, words: {en: [help me please, call the police]}}",
    "phrase": "{rule: phrase, phrases: [somebody is breaking in]}",
}


def page() -> str:
    """The whole page."""
    parts = [HEAD, *(_section(each) for each in SECTIONS), _rules(), _secrets()]
    return "\n".join([*parts, NOTE.format("pipeline/config/schema.py and rule_kinds.py")])


def rows(cls: type) -> list[FieldDoc]:
    """The fields of a struct, with its tag as a field of its own."""
    tag = cls.__struct_config__
    tagged = isinstance(tag.tag, str) and tag.tag_field not in (None, "type")
    first = [FieldDoc(tag.tag_field, f"`{tag.tag}`", "", None, "The kind.")] if tagged else []
    return first + fields(cls)


def _section(section: Section) -> str:
    place = f"Where: `{section.place}`\n\n" if section.place else ""
    title = f"## {section.cls.__name__}\n\n{place}"
    text = wrapped(about(section.cls)) + "\n\n"
    return title + text + _table(section.cls) + "\n" + _yaml(section.example)


def _table(cls: type) -> str:
    cells = [
        (
            f"`{row.name}`",
            row.type + (f"; {row.unit}" if row.unit else ""),
            "required" if row.default is None else row.default,
            row.about,
        )
        for row in rows(cls)
    ]
    return table(("key", "type; unit", "default", "meaning"), cells)


def _yaml(text: str) -> str:
    return f"```yaml\n{text}```\n"


def rule_classes() -> tuple[type[msgspec.Struct], ...]:
    """The kinds of rules, in the order of the types."""
    return get_args(Rule)


def _rules() -> str:
    parts = [
        "## Rules\n\nWhere: `sites.NAME.rules[]`\n\n"
        + wrapped(
            "Each rule has a kind, `rule`. Rules without a `name` are named by their kind and their zone or line, such"
            " as `zone-floor`; a second one of the same name is `zone-floor-2`. `objects` are classes of the"
            " detector, and the sounds of a `sound` rule are labels: both are listed in [Labels](labels.md)."
            " A `schedule` is one or more spans with commas: `22:00-06:00`, or `mon-fri 18:00-07:00, sat sun"
            " 00:00-24:00`, in the time zone of the site. A span over midnight belongs to the day on which it begins."
        )
        + "\n"
    ]
    for cls in rule_classes():
        name = str(cls.__struct_config__.tag)
        example = f"rules:\n  - {RULES[name]}\n"
        parts.append(f"### {name}\n\n{wrapped(about(cls))}\n\n{_table(cls)}\n{_yaml(example)}")
    languages = ", ".join(LANGUAGES)
    parts.append(
        wrapped(
            f"Languages of `keyword` rules: {languages}. The default speech model knows English."
        )
        + "\n"
    )
    return "\n".join(parts)


def _secrets() -> str:
    return (
        "## Secrets\n\n"
        + wrapped(
            "`${NAME}` stands for the environment variable NAME, in a source, a webhook's `url` and `secret`, `bus.sasl`"
            " and `bus.tls`. `file:PATH` stands for what the file holds, as a webhook's `secret`, as `api.token`, as"
            " `bus.sasl.password` and as the `password` of a source. Inside of a text, `${file:PATH}` stands for it."
            " Secrets are read when they are needed: `check` and `replay` need none, and `check` warns of one that is"
            " not there. No message, log"
            " line or record shows them."
        )
        + "\n"
    )
