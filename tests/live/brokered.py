"""Workers over real brokers: configs, topics, how far they are, and what they told last."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import codec, stages, topics
from pipeline.bus.kafka.admin import Admin
from pipeline.bus.kafka.bus import KafkaBus
from pipeline.config import schema
from pipeline.sources import roster
from pipeline.types import SECOND, FrameChunk, Progress, Record
from tests.live.servers import eventually
from workers import worker
from workers.bus import topic_admin
from workers.bus.publish import publish_captured
from workers.config import loader
from workers.media.jpeg import encoded
from workers.replay.scene_records import Scene, load_scene
from workers.runtime.lag import unanswered
from workers.stages.encoders import Encoders
from workers.worker import Worker, WorkerOptions

BUS = """
bus:
  kind: kafka
  brokers: [{brokers}]
  prefix: {prefix}
  replication: 1
  min_insync: 1
  partitions: {{frames: 2, audio: 2, reports: 1, observations: 2, anomalies: 2, alerts: 2}}
"""
STAGES = tuple(stage for stage in stages.WORKERS if stage != stages.CAPTURE)
JUDGES = (  # who reads what was observed, in the order that records flow
    (topics.OBSERVATIONS, "fusion"),
    (topics.ANOMALIES, "alert"),
    (topics.ALERTS, "delivery-jsonl"),
)
ALWAYS = 1 << 62  # ns; later than anything


def prefix() -> str:
    """A name for topics and groups that nobody else has."""
    return f"t{uuid.uuid4().hex[:12]}"


def over_kafka(path: Path, brokers: str, more: str = "") -> Path:
    """The config beside `path`, over these brokers under a fresh prefix; its topics are made."""
    made = path.with_name(f"{path.stem}-{uuid.uuid4().hex[:12]}.yaml")
    text = BUS.format(brokers=json.dumps(brokers), prefix=prefix())
    made.write_text(path.read_text() + text + more)
    settings = loader.load(made)
    assert isinstance(settings.bus, schema.KafkaBus)
    with Admin(settings.bus) as admin:
        assert list(topic_admin.create(settings, settings.bus, admin))
    return made


@contextmanager
def watched(path: Path) -> Iterator[KafkaBus]:
    """A bus over the brokers of a config, to look on."""
    settings = loader.load(path).bus
    assert isinstance(settings, schema.KafkaBus)
    bus = KafkaBus(settings, client="test")
    try:
        yield bus
    finally:
        bus.close()


def waiting(bus: KafkaBus, topic: str, group: str) -> int:
    """Entries that a group has not answered; a delivery's note is not a stage's."""
    committed = bus.committed(topic, group)
    if group.startswith("delivery-"):
        committed = {number: (offset, b"") for number, (offset, _) in committed.items()}
    return unanswered(bus.end(topic), committed)


def joined(path: Path, group: str) -> str:
    """How a group shares its partitions, as soon as somebody is in it."""
    settings = loader.load(path).bus
    assert isinstance(settings, schema.KafkaBus)
    name = f"{settings.prefix}-{group}"
    with Admin(settings) as admin:
        return str(eventually(lambda: admin.assignor(name), within=60, every=0.1))


def put(path: Path, *records: Record) -> None:
    """Publish what a capture would."""
    with watched(path) as bus:
        for record in records:
            publish_captured(bus, topics.FRAMES, record)
        bus.flush()


def frame() -> FrameChunk:
    """A picture of the office."""
    data = encoded(np.full((48, 64, 3), 200, np.uint8))
    return FrameChunk(site="office", source="desk", start=SECOND, end=2 * SECOND, seq=0,
                      width=64, height=48, data=data)  # fmt: skip


def parsed(event: bytes) -> dict[str, Any]:
    """A CloudEvent."""
    return json.loads(event)  # type: ignore[no-any-return]


def observed(bus: KafkaBus, scene: Scene, sources: Sequence[str]) -> bool:
    """Whether every source of the scene was observed to its end: stages promise it in order.

    Commits do not tell: those of Faust stand at what is still needed, and carry no note.
    """
    upto = dict.fromkeys(sources, 0)
    for entry in bus.between(topics.OBSERVATIONS, 0, ALWAYS):
        record = codec.decode(entry.value)
        if isinstance(record, Progress) and record.site == scene.site:
            upto[record.source] = max(record.upto, upto.get(record.source, 0))
    return min(upto.values()) >= scene.end


def settled(
    path: Path,
    scene: Path,
    *,
    within: float,
    failed: Callable[[], BaseException | None] = lambda: None,
) -> None:
    """Returns when the scene is observed to its end, and every alert of it is delivered.

    Raises what `failed` says has ended a worker meanwhile.
    """
    played = load_scene(scene)
    site = loader.load(path).sites[played.site]
    sources = roster(site.cameras, site.microphones)

    def soon(what: Callable[[], bool]) -> None:
        def done() -> bool:
            if (error := failed()) is not None:
                raise error
            return what()

        eventually(done, within=within, every=0.2)

    with watched(path) as bus:
        soon(lambda: observed(bus, played, sources))
        for topic, group in JUDGES:  # in this order: none is given more once it is done
            soon(lambda topic=topic, group=group: waiting(bus, topic, group) == 0)  # type: ignore[misc]


class Thread:
    """A worker in a thread of this process, as a process runs it but for the signals."""

    def __init__(self, order: WorkerOptions, path: Path, encoders: Encoders) -> None:
        self.worker: Worker = worker.prepared(order, path)
        self._thread = threading.Thread(
            target=self._run, args=(encoders,), name=f"worker {order.stage}"
        )
        self._thread.start()

    def _run(self, encoders: Encoders) -> None:
        supervisor = self.worker.supervisor
        try:
            self.worker.work(encoders)
        except BaseException as error:
            supervisor.blame("the start", error)
        finally:
            self.worker.close()

    def ended(self) -> BaseException | None:
        """Wait for its end; the error that ended it."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.worker.supervisor.error

    def stop(self) -> BaseException | None:
        """As SIGTERM does."""
        self.worker.supervisor.stop.set()
        return self.ended()


def play(
    path: Path,
    scene: Path,
    encoders: Encoders,
    *,
    faust: Sequence[str] = (),
    within: float = 60,
) -> list[dict[str, Any]]:
    """A scene through a worker for each stage; the CloudEvents that the delivery worker wrote.

    `faust` are the stages that run under Faust. `path` is of `over_kafka`.
    """
    state = path.parent / path.stem
    threads = [
        Thread(
            WorkerOptions(stage=stage, recorded=True, faust=stage in faust, state=state),
            path,
            encoders,
        )
        for stage in STAGES
    ]
    try:
        capture = Thread(WorkerOptions(stage="capture", scene=scene, state=state), path, encoders)
        assert capture.ended() is None
        settled(path, scene, within=within, failed=partial(_failed, threads))
    finally:
        errors = [worker.stop() for worker in threads]
    assert errors == [None] * len(threads)
    return told(state)


def _failed(threads: Sequence[Thread]) -> BaseException | None:
    return next(
        (one.worker.supervisor.error for one in threads if one.worker.supervisor.error), None
    )


def told(state: Path) -> list[dict[str, Any]]:
    """The CloudEvents in the state folder of a delivery worker, or of the daemon."""
    file = state / "alerts.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
