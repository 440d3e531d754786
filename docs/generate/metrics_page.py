"""The page docs/reference/metrics.md: every counter and gauge, and what the code counts.

The meanings are written here. `emitted` reads the names out of the code, and a test compares both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docs.generate.fields import NOTE, table

ROOT = Path(__file__).resolve().parents[2]
# Calls that count or set a value by a name; and functions that return the name of a counter
CALLS = {"count", "counts", "_count", "_dropped", "gauge", "_gauge", "dropped"}
BY_FOLDER = {"capture": {"_told"}, "delivery": {"_tell"}}  # the same, in these folders alone
RETURNS = {"_stored", "refused"}
NAME = re.compile(r"[a-z_]+(\.[a-z*-]+)?")
APART = "training"  # a folder whose `count` is of something else

HEAD = """\
# Metrics

Every counter and gauge of a running process: its name, unit and meaning. `GET /v1/status`
([HTTP API](http.md#get-v1status)) returns them as JSON; a worker writes the same values into its log.

A counter belongs to a site and a source. It counts from the start of the process and never falls. A gauge belongs to
the process and has the value of this moment. No name or value holds an address or a secret.
"""
BALANCE = """\
For every camera and microphone this equation holds at each moment, over distinct frames or chunks of sound:

    captured + captured.earlier = processed + the sum of gated.* + the sum of dropped.* + waiting

The status has `waiting` for each source that this process captures, from the same moment as the counters. It is one
frame (or 30 s of sound) before it is published, and what lies in the log until a stage reads it. In a capture worker,
what the brokers have (`forwarded`) is not waiting. The counters of other names are not part of the equation.
[Overload](../explanations/overload.md) explains what is dropped, and when.
"""


class Metric(NamedTuple):
    """One counter or gauge; `*` stands for a name."""

    name: str
    unit: str
    about: str


BALANCED = (
    Metric("captured", "frames or chunks", "Came from the source."),
    Metric(
        "captured.earlier", "frames or chunks", "Lay in the log (or spool) when this process began."
    ),
    Metric("processed", "frames or chunks", "Were analysed by the stage that reads them."),
    Metric("gated.rate", "frames", "Were not wanted at `detect.fps`."),
    Metric(
        "gated.undecoded", "frames", "Stand between keyframes, and `detect.decode` leaves them."
    ),
    Metric("gated.still", "frames", "Were not looked at, because nothing moves in them."),
    Metric("dropped.newer", "frames", "Gave way to a newer frame before they were published."),
    Metric("dropped.stale", "frames", "Were published, and the detector had no time for them."),
    Metric("dropped.behind", "chunks", "Sound that was not heard: hearing was too far behind."),
    Metric(
        "dropped.retention", "frames or chunks", "Were deleted from the log before they were read."
    ),
    Metric("dropped.overrun", "chunks", "Sound that waited for more than 30 s to be published."),
    Metric("dropped.undecodable", "frames", "Were damaged."),
    Metric("dropped.unusable", "chunks", "Sound that could not be decoded."),
    Metric("dropped.size", "frames", "Were larger than 16,384 px."),
    Metric("dropped.too-large", "frames or chunks", "Were larger than `bus.max_message`."),
    Metric("dropped.disk-full", "frames or chunks", "Came while the disk had no space."),
    Metric(
        "dropped.promised", "frames or chunks", "Came from a time at which the source was lost."
    ),
    Metric("dropped.spool", "frames or chunks", "Were deleted because the spool was full (Kafka)."),
)
OTHER = (
    Metric("published", "frames or chunks", "Went into the log or the spool."),
    Metric("posed", "persons", "Had their pose estimated (`detect.poses`)."),
    Metric("seconds.heard", "seconds", "Of a microphone, and of its speech: a model heard them."),
    Metric("seconds.gated", "seconds", "Were not heard, because they hold the usual noise alone."),
    Metric(
        "audited",
        "frames or seconds",
        "Would be gated, and were analysed all the same (`detect.audit`, `hear.audit`).",
    ),
    Metric(
        "audited.missed",
        "frames or seconds",
        "Audited: show an object that no look before them showed; have a label or voice.",
    ),
    Metric("forwarded", "frames or chunks", "Were acknowledged by the brokers (Kafka)."),
    Metric("cut.promised", "chunks", "Lost the part from a time at which the source was lost."),
    Metric("overrun", "blocks", "Sound that the sound device or its reader lost."),
    Metric("ahead", "blocks", "Sound that came faster than time and was left out."),
    Metric("damaged", "packets", "Sound of a stream that could not be decoded."),
    Metric("repaired.not-finite", "samples", "Were no numbers, and are zero now."),
    Metric(
        "repaired.opposite-phase",
        "blocks",
        "Sound whose channels cancel each other: the loudest one was taken.",
    ),
    Metric("hwaccel.failed", "times", "The device of `hwaccel` was not used: software decodes."),
    Metric("keyframes.unusable", "times", "All frames are decoded: the keyframes are of no use."),
    Metric("defects", "lives", "Of a source: ended by an unexpected error."),
    Metric("seconds.behind", "seconds", "Have no Sound: hearing was too far behind."),
    Metric("repeated.samples", "samples", "Came twice; the second was ignored."),
    Metric("unusable.untimed", "frames", "Of a recording: had no time."),
    Metric("unusable.rewound", "frames", "Of a recording: were out of order."),
    Metric("unusable.size", "frames", "Of a recording: were too large."),
    Metric("unusable.undecodable", "packets", "Of a recording: were damaged."),
    Metric("unusable.rate", "frames", "Sound of a recording: had an unbelievable sample rate."),
)
SPEECH = (
    Metric("utterances", "utterances", "Were transcribed and published."),
    Metric("not_understood", "utterances", "Had a transcript that is not believed."),
    Metric("not_transcribed.behind", "utterances", "Were found only: hearing was too far behind."),
)
RULES = (
    Metric(
        "refused.*",
        "times",
        "`*` is a rule and a reason, as in `refused.zone-floor.min_score`: this stood in the way.",
    ),
)
DELIVERY = (
    Metric("delivered", "alerts", "The subscriber answered 2xx, or the file has them."),
    Metric("filtered", "alerts", "Are not for this subscriber: another site or a lower severity."),
    Metric("retried", "attempts", "Failed; the alert is tried again."),
    Metric("dead", "alerts", "Were given up and are dead letters."),
)
GAUGES = (
    Metric("behind.*", "records", "Wait for stage or delivery `*`."),
    Metric("lost.*", "records", "Were deleted before stage or delivery `*` had read them."),
    Metric("pending.*", "alerts", "Wait to be delivered to subscriber `*`."),
    Metric("failing.*", "0 or 1", "1: the last attempt to reach subscriber `*` failed."),
    Metric("spool.waiting", "records", "Wait in the spool of a capture worker (Kafka)."),
    Metric("spool.bytes", "bytes", "The size of that spool (Kafka)."),
    Metric("recording.bytes", "bytes", "The size of the files of the continuous recording."),
    Metric("recording.lost", "records", "Were deleted before they were recorded."),
    Metric("recording.waits", "seconds", "For so long nothing could be recorded; 0: it records."),
)
PARTS = (
    ("The balance of a source", BALANCE, BALANCED),
    ("Other counters of a source", "", OTHER),
    (
        "Speech",
        "The source is the microphone's name and `/speech`, such as `room/speech`.\n",
        SPEECH,
    ),
    (
        "Rules",
        "The source is `rules/` and the name of the camera or microphone, such as `rules/desk`; it is"
        " `rules/window` for the\njudgements of windows. The config and the number of reasons bound how"
        " many counters there are. [Why did it not\ncome?](../guides/explain.md#reasons) lists the"
        " reasons. A replay does not count them.\n",
        RULES,
    ),
    ("Delivery", "The source is `delivery/` and the name of the subscriber.\n", DELIVERY),
    ("Gauges", "", GAUGES),
)


def documented() -> set[str]:
    """The names that the page explains."""
    return {metric.name for _, _, metrics in PARTS for metric in metrics}


def emitted() -> set[str]:
    """The names that the code counts or sets."""
    names: set[str] = set()
    for path in (ROOT / "workers").rglob("*.py"):
        if path.parent.name != APART:
            calls = CALLS | BY_FOLDER.get(path.parent.name, set())
            names.update(_names(ast.parse(path.read_text()), calls))
    return {name for name in names if NAME.fullmatch(name)}


def _names(tree: ast.AST, calls: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in calls:
                for argument in node.args:
                    if name == "gauge" or not isinstance(argument, ast.JoinedStr):
                        yield from _texts(argument)
            case ast.Subscript(value=ast.Name(id="counted")):
                yield from _texts(node.slice)
            case ast.FunctionDef(name=name) if name in RETURNS:
                for each in ast.walk(node):
                    if isinstance(each, ast.Return):
                        yield from _texts(each.value)


def _texts(node: ast.AST | None) -> Iterator[str]:
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.IfExp():
            yield from (*_texts(node.body), *_texts(node.orelse))
        case ast.Tuple():
            for each in node.elts:
                yield from _texts(each)
        case ast.Dict():
            for key in node.keys:
                yield from _texts(key)
        case ast.JoinedStr(values=[ast.Constant(value=str() as text), *_]):
            yield f"{text}*"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, text, metrics in PARTS:
        rows = [(f"`{each.name}`", each.unit, each.about) for each in metrics]
        lead = f"{text}\n" if text else ""
        parts.append(f"## {title}\n\n{lead}{table(('name', 'unit', 'meaning'), rows)}")
    return "\n".join([*parts, NOTE.format("docs/generate/metrics_page.py")])
