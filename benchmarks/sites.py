"""Measures how many cameras one fusion worker can serve, and the cost of many sites a partition.

    python -m benchmarks.sites [--cameras 4] [--people 2] [--seconds 30]

1, 10, 50 and 200 sites share one partition. Each site has four cameras at 5 frames/s with walking
people, and one microphone. Fusion and alerting read them from a bus in memory, 64 records a step,
with a zone rule and a sound rule. Prints records a second of CPU, the cameras a core can serve, the
time of a commit (`safe` and the note), and the bytes of the note and of the observations.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config import rule_kinds, schema
from pipeline.run import Runner
from pipeline.sources import speech_source
from pipeline.types import SECOND, Box, Detections, Progress, Record, Roster, Sound
from tests.fakes import FakeText
from workers.stages.alert import AlertStage
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_incidents, site_plan

BEGIN = 1_795_478_400 * SECOND  # 2026-11-24T00:00:00Z
FPS = 5
EMBEDDING = bytes(2 * 521)  # each second of sound carries YAMNet's scores


def site(cameras: int) -> schema.Site:
    """The settings of a site with so many cameras."""
    zone = schema.Zone(coordinates="0,0, 1,0, 1,1, 0,1")
    return schema.Site(
        cameras={
            f"camera-{number}": schema.Camera(source="device:0", zones={"floor": zone})
            for number in range(cameras)
        },
        microphones={"room": schema.Microphone(source="device:default")},
        rules=(
            rule_kinds.ZoneRule(zone="floor", schedule="03:00-03:01"),
            rule_kinds.SoundRule(labels={"gunshot": 0.5}),
        ),
    )


def frame(name: str, camera: str, start: int, people: int) -> Iterator[Record]:
    """The detections and Progress of a frame; each person walks on a circle."""
    turn = start / SECOND / 10
    boxes = []
    for number in range(people):
        x, y = (0.5 + 0.3 * way(turn + number) for way in (math.sin, math.cos))
        x1, y1, x2, y2 = (round(v, 3) for v in (x - 0.05, y - 0.15, x + 0.05, y + 0.15))
        boxes.append(Box(label="person", score=0.9, x1=x1, y1=y1, x2=x2, y2=y2))
    end = start + SECOND // FPS
    yield Detections(site=name, source=camera, start=start, end=end, boxes=tuple(boxes))
    yield Progress(site=name, source=camera, upto=start + 1)


def second(name: str, of: schema.Site, start: int, people: int) -> Iterator[Record]:
    """The records of one site in a second."""
    sources = (*of.cameras, "room", speech_source("room"))
    if start // SECOND % 10 == 0:
        for source in sources:
            yield Roster(site=name, source=source, sources=sources, start=start)
    for number in range(FPS):
        for camera in of.cameras:
            yield from frame(name, camera, start + number * SECOND // FPS, people)
    end = start + SECOND
    labels = {"gunshot": 0.01}
    yield Sound(site=name, source="room", start=start, end=end, labels=labels, embedding=EMBEDDING)
    yield Progress(site=name, source="room", upto=end)
    yield Progress(site=name, source=speech_source("room"), upto=end)


def measure(sites: int, asked: argparse.Namespace) -> None:
    """Prints the figures for so many sites on one partition."""
    of = site(asked.cameras)
    names = [f"{'site':-<36}{number:04}" for number in range(sites)]
    bus = MemoryBus(keep_bytes=0)
    plan = site_plan(of, FakeText(), recorded=False)
    alerting = AlertStage(dict.fromkeys(names, site_incidents(of)), lambda *_: ())
    fusion = Runner(
        FusionStage(dict.fromkeys(names, plan)),
        bus,
        topic=topics.OBSERVATIONS,
        group="fusion",
        out=topics.ANOMALIES,
    )
    alert = Runner(alerting, bus, topic=topics.ANOMALIES, group="alert", out=topics.ALERTS)
    records = volume = 0
    fusing = alerts = 0.0
    for k in range(asked.seconds):
        for name in names:
            for record in second(name, of, BEGIN + k * SECOND, asked.people):
                value = codec.encode(record)
                records, volume = records + 1, volume + len(value)
                bus.publish(topics.OBSERVATIONS, name, value)
        bus.flush()
        began = time.process_time()
        while fusion.step():
            pass
        between = time.process_time()
        while alert.step():
            pass
        fusing, alerts = fusing + between - began, alerts + time.process_time() - between
    began = time.process_time()
    for _ in range(100):
        _ = fusion.hosts[0].safe, fusion.hosts[0].note
    commit = (time.process_time() - began) / 100
    bears = sites * asked.cameras * asked.seconds / fusing
    print(
        f"{sites:4} sites of {asked.cameras} cameras: fusion {records / fusing:8,.0f} records/s, "
        f"{bears:6,.0f} cameras a core; alerting {sites * asked.seconds / alerts:6,.0f} sites a "
        f"core; a commit {commit * 1e3:.2f} ms; a note of {len(fusion.committed[0][1])} bytes; "
        f"{volume / sites / asked.cameras / asked.seconds:,.0f} bytes/s of observations a camera"
    )


def main() -> None:
    """Measures 1, 10, 50 and 200 sites."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=4, help="of a site")
    parser.add_argument("--people", type=int, default=2, help="before each camera")
    parser.add_argument("--seconds", type=int, default=30)
    asked = parser.parse_args()
    for sites in (1, 10, 50, 200):
        measure(sites, asked)


if __name__ == "__main__":
    main()
