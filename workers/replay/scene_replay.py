"""Replays a recorded scene through the whole graph; always the same bytes.

One thread reads the media. Each stage that looks at pictures, hears sound or reads reports works
ahead in a thread of its own. The calling thread publishes all of it in the order of the slices and
stages, and judges it. So what the judging stages read does not depend on how fast the others are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import msgspec

from models.fusion.head import Head
from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.judge.refusal import CollectorOf
from pipeline.ports import Bus, Entry, Reader
from pipeline.run import drain
from pipeline.stages import ALL_STAGES
from pipeline.types import SECOND, Alert, Record, event_start
from workers import graph
from workers.bus.publish import publish_captured
from workers.media import recordings
from workers.replay.scene_records import Scene, load_scene, scene_records
from workers.runtime.status import Status
from workers.stages.encoders import Encoders
from workers.stored.ahead import Ahead
from workers.stored.stage_ahead import Outgoing, Published, StageAhead

R = TypeVar("R", bound=Record)

SLICE = SECOND // 2  # ns of event time published before the stages run
# slices of one camera that are decoded while the stages run; the time of a long utterance, in which
# one stage keeps one core busy and the others go on
SLICES_AHEAD = 32
LEAST_AHEAD = 4  # slices, however many cameras there are


class ReplayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options for experiments on a scene.

    They give other heads, a corruption of the records before the stages, the records that are left
    out (`keep` returns None), fewer stages, another way to open a video, or collectors of what
    stood in the way of alerts.
    """

    heads: Mapping[str, Head] | None = None
    spoil: Callable[[Record], Record] = lambda record: record
    keep: Callable[[Record], Record | None] = lambda record: record
    stages: Sequence[str] = ALL_STAGES
    film: recordings.OpenVideo = recordings.Video
    refusals: CollectorOf | None = None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a scene: alert revisions in the order they were made, and the time taken."""

    scene: Scene
    alerts: tuple[Alert, ...]
    seconds: float  # of wall clock, models loaded before
    status: Status

    @property
    def factor(self) -> float:
        """The speed as a multiple of real time."""
        return (self.scene.end - self.scene.start) / SECOND / self.seconds


def replay(
    config: Config,
    scene: Scene | Path,
    encoders: Encoders,
    *,
    speed: float | None = None,
    bus: Bus | None = None,
    heard: Callable[[int, int], None] = lambda done, all_: None,
    study: ReplayOptions | None = None,
) -> Replayed:
    """Plays one scene on a new bus and state; `speed` 1 is real time, None is as fast as possible.

    `heard` is called with the finished and the total event time, in ns. Raises ConfigError for a
    scene that does not fit the config.
    """
    scene = load_scene(scene) if isinstance(scene, Path) else scene
    study = study or ReplayOptions()
    if scene.site not in config.sites:
        known = ", ".join(sorted(config.sites))
        msg = f"{scene.path}: site: {scene.site!r} is not in the config, which has {known}"
        raise ConfigError(msg)
    began = time.monotonic()
    bus, status = bus or MemoryBus(), Status()
    nodes = graph.nodes(
        config,
        encoders,
        status,
        recorded=True,
        stages=study.stages,
        judges=study.heads,
        refusals=study.refusals,
    )
    records = scene_records(scene, config.sites[scene.site], status=status, film=study.film)
    reader = bus.reader(topics.ALERTS, "replay")
    alerts: list[Alert] = []
    with ExitStack() as opened:
        runners = [
            opened.enter_context(
                closing(StageAhead(node, bus) if node.topic in topics.CHUNKS else node.runner(bus))
            )
            for node in nodes
        ]
        stages = [runner for runner in runners if isinstance(runner, StageAhead)]
        most = max(LEAST_AHEAD, SLICES_AHEAD // max(1, len(scene.cameras)))
        slices = opened.enter_context(closing(Ahead(_given(records, study, stages), most)))
        coming = iter(slices)

        def pump() -> bool:
            alerts.extend(new_records(reader, Alert))
            for upto, entries in coming:
                _pace(began, upto - scene.start, speed)
                for entry in entries:
                    bus.publish(*entry)
                bus.flush()
                heard(min(upto, scene.end) - scene.start, scene.end - scene.start)
                return True
            return False

        drain(runners, pump)
        alerts.extend(new_records(reader, Alert))
    seconds = time.monotonic() - began
    return Replayed(scene=scene, alerts=tuple(alerts), seconds=seconds, status=status)


def _given(
    records: Iterator[tuple[str, Record]], study: ReplayOptions, stages: Sequence[StageAhead]
) -> Iterator[tuple[int, list[Published]]]:
    """Yields each slice as entries of the bus; the stages that work ahead have got it then."""
    out = Outgoing()
    for upto, slice_ in slices_of(records):
        for topic, record in slice_:
            if (kept := study.keep(record)) is not None:
                publish_captured(out, topic, study.spoil(kept))
        entries = out.taken()
        for stage in stages:
            stage.give(entries)
        yield upto, entries


def slices_of(
    records: Iterator[tuple[str, Record]],
) -> Iterator[tuple[int, list[tuple[str, Record]]]]:
    """Groups records into slices of `SLICE` event time, so that memory stays bounded."""
    held: list[tuple[str, Record]] = []
    end = 0
    for topic, record in records:
        start = event_start(record)
        if held and start >= end:
            yield end, held
            held = []
        if not held:
            end = start // SLICE * SLICE + SLICE
        held.append((topic, record))
    if held:
        yield end, held


def new_records(reader: Reader, kind: type[R]) -> Iterator[R]:
    """Yields the records of a kind that `reader` has not returned yet."""
    while polled := reader.poll(1000):
        for event in polled:
            if isinstance(event, Entry):
                record = codec.decode(event.value)
                if isinstance(record, kind):
                    yield record


def _pace(began: float, event: int, speed: float | None) -> None:
    if speed:
        time.sleep(max(0.0, began + event / SECOND / speed - time.monotonic()))
