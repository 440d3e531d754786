"""What runs are compared by: last revisions of alerts, and what the models said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config
from pipeline.ports import Entry
from pipeline.types import Described, Detections, Sound, Utterance, ns
from workers.delivery.cloudevent import event_bytes
from workers.replay.scene_replay import replay
from workers.stages.encoders import load_encoders

BEGIN = datetime(2026, 1, 5, 22, tzinfo=UTC)  # of every scene; the k-th of a site begins k STEPs on
STEP = timedelta(minutes=10)  # more than the longest scene and what any stage remembers

Place = tuple[str, int]  # site and number of the scene there
Revision = tuple[Any, ...]  # (site, labels, severity, start, end, rules), as runs are compared
Said = tuple[str, str, str, int]  # type, site, source and start of what a model said


@dataclass(frozen=True)
class Likeness:
    """Of one scene, as if it had been the first of its site."""

    revisions: Counter[Revision]
    said: Mapping[Said, bytes]


def replayed(settings: Config, scenes: Iterable[Path]) -> dict[str, Likeness]:
    """What a replay gives of each scene: the undisturbed run, in one thread on a bus in memory."""
    encoders = load_encoders(settings.models, recorded=True)
    found = {}
    for scene in scenes:
        bus = MemoryBus()
        told = replay(settings, scene, encoders, bus=bus)
        events = [json.loads(event_bytes(alert)) for alert in told.alerts]
        observations = values(bus, topics.OBSERVATIONS)
        found[scene.stem] = likenesses(events, observations)[told.scene.site, 0]
    return found


def values(bus: MemoryBus, topic: str) -> list[bytes]:
    """Everything that was published to a topic."""
    reader = bus.reader(topic, "likeness")
    found: list[bytes] = []
    while polled := [each for each in reader.poll(10_000) if isinstance(each, Entry)]:
        found += [entry.value for entry in polled]
    return found


def likenesses(
    events: Sequence[Mapping[str, Any]], observations: Iterable[bytes]
) -> dict[Place, Likeness]:
    """By scene, of all the alerts and observations of a run."""
    said = spoken(observations)
    last = {event["data"]["alert_id"]: event["data"] for event in sorted(events, key=_revision)}
    places = {_place(data) for data in last.values()} | {place for place, _ in said}
    return {
        place: Likeness(
            # Counted: an alert that came under two ids stands here twice.
            Counter(_compared(data) for data in last.values() if _place(data) == place),
            {what: words for (at, what), words in said.items() if at == place},
        )
        for place in places
    }


def spoken(observations: Iterable[bytes]) -> dict[tuple[Place, Said], bytes]:
    """What the models said, in their exact words, times counted as in the site's first scene.

    Raises AssertionError when they said two things of one.
    """
    found: dict[tuple[Place, Said], bytes] = {}
    for value in observations:
        record = codec.decode(value)
        if isinstance(record, Detections | Sound | Utterance | Described):
            # An early sound begins half a second before the second that it is for.
            at = record.end - 1 if isinstance(record, Sound) else record.start
            number = (at - ns(BEGIN.timestamp())) // ns(STEP.total_seconds())
            gone = number * ns(STEP.total_seconds())
            record = replace(record, start=record.start - gone, end=record.end - gone)
            what = (type(record).__name__, record.site, record.source, record.start)
            words = codec.encode(record)
            assert found.setdefault(((record.site, number), what), words) == words, what
    return found


def _revision(event: Mapping[str, Any]) -> int:
    return int(event["data"]["revision"])


def _place(data: Mapping[str, Any]) -> Place:
    second, _ = _moment(data["start"])
    return data["site"], (second - BEGIN) // STEP


def _compared(data: Mapping[str, Any]) -> Revision:
    gone = _place(data)[1] * STEP
    times = []
    for time in (data["start"], data["end"]):
        second, rest = _moment(time) if time else (None, "still open")
        times.append((second and (second - BEGIN - gone).total_seconds(), rest))
    who = (data["site"], tuple(data["labels"]), data["severity"])
    return (*who, *times, tuple(data["rules"]))


def _moment(time: str) -> tuple[datetime, str]:
    """Its second, and the nanoseconds as they are written."""
    second, _, rest = time.partition(".")
    return datetime.fromisoformat(f"{second}Z"), rest
