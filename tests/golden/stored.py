"""Stored observations and alerts of the recorded scenes: what a change of the code must not change.

    python -m tests.golden.stored        writes them anew; needs weights and scenes
    python -m tests.golden.stored demo   writes those of the shipped demo scene alone

`SCENE.obs.xz` holds the records of `observations.v1` as vision, sound, speech and text published
them, and the embedded phrases of the site's rules: so fusion and alerting are judged on a machine
without weights, too. `SCENE.jsonl` holds the alerts, as `fusewatch replay` writes them.
"""

from __future__ import annotations

import functools
import hashlib
import lzma
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from pipeline import topics
from pipeline.bus.memory import MemoryBus
from pipeline.config import rule_kinds
from pipeline.config.schema import Config
from pipeline.ports import Entry
from pipeline.run import drain
from pipeline.stages import JUDGES
from pipeline.types import Alert
from workers import graph
from workers.config import loader
from workers.delivery.jsonl import write_all
from workers.demo.demo import SHIPPED
from workers.replay.scene_replay import new_records, replay
from workers.runtime.status import Status
from workers.stages.encoders import Encoders, load_encoders

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCENES = (
    "office-after-hours",
    "office-break-in",
    "office-camera-lost",
    "plaza-explosion",
    "plaza-quiet",
    "retail-gunshot",
    "retail-quiet",
)
DEMO = "demo"  # the scene that is shipped
PROCESSOR = HERE / "processor.sha256"  # of the machine that wrote the files


class Stored(msgspec.Struct, frozen=True):
    """What one scene gave: (key, record, traceparent) in order, and phrase -> float32 vector."""

    entries: Sequence[tuple[str, bytes, str]]
    phrases: dict[str, bytes]


def site_of(scene: str) -> Config:
    """The config of the site that a scene was recorded at."""
    if scene == DEMO:
        return loader.load(SHIPPED / "site.yaml")
    return loader.load(ROOT / f"deploy/examples/{scene.split('-', maxsplit=1)[0]}.yaml")


class Played(msgspec.Struct, frozen=True):
    """What the real models gave of a scene: observations, alerts, and the file of the alerts."""

    stored: Stored
    alerts: tuple[Alert, ...]
    file: bytes


def scene_file(scene: str, folder: Path) -> Path:
    """The file of a scene; `folder` has those that are not shipped."""
    return SHIPPED / "scene.yaml" if scene == DEMO else folder / f"{scene}.yaml"


@functools.cache
def played(scene: str, file: Path) -> Played:
    """A scene by real models, once in a process: a scene takes seconds."""
    settings, bus, models = site_of(scene), MemoryBus(), encoders()
    alerts = replay(settings, file, models, bus=bus).alerts
    entries = observed(bus)
    rules = [rule for site in settings.sites.values() for rule in site.rules]
    said = [p for rule in rules if isinstance(rule, rule_kinds.PhraseRule) for p in rule.phrases]
    vectors = models.text(said) if said else []
    phrases = {p: np.asarray(v, np.float32).tobytes() for p, v in zip(said, vectors, strict=True)}
    return Played(Stored(entries, phrases), alerts, _written(alerts))


def observed(bus: MemoryBus) -> list[tuple[str, bytes, str]]:
    """The entries of `observations.v1`, in order."""
    reader = bus.reader(topics.OBSERVATIONS, "golden")
    entries = []
    while polled := reader.poll(1000):
        entries += [(e.key, e.value, e.trace) for e in polled if isinstance(e, Entry)]
    return entries


def judged(scene: str) -> bytes:
    """The alerts file that fusion and alerting make of a scene's stored observations."""
    settings, stored, bus = site_of(scene), read(scene), MemoryBus()

    def text(batch: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(stored.phrases[phrase], np.float32) for phrase in batch]

    def unused(*_: object) -> list[object]:
        msg = "stored observations are not looked at again"
        raise AssertionError(msg)

    models = Encoders(
        detector=unused,
        detector_high=unused,
        sound=unused,
        sound_head=unused,
        voice=unused,
        speech=unused,
        text=text,
        pose=unused,
    )
    nodes = graph.nodes(settings, models, Status(), recorded=True, stages=JUDGES)
    runners = [node.runner(bus) for node in nodes]
    reader = bus.reader(topics.ALERTS, "golden")
    alerts: list[Alert] = []
    for at in range(0, len(stored.entries), 500):
        for key, value, trace in stored.entries[at : at + 500]:
            bus.publish(topics.OBSERVATIONS, key, value, trace)
        bus.flush()
        drain(runners)
        alerts += new_records(reader, Alert)
    return _written(alerts)


def read(scene: str) -> Stored:
    """The stored observations of a scene."""
    packed = lzma.decompress((HERE / f"{scene}.obs.xz").read_bytes())
    return msgspec.msgpack.decode(packed, type=Stored)


def alerts_of(scene: str) -> bytes:
    """The stored alerts of a scene."""
    return (HERE / f"{scene}.jsonl").read_bytes()


@functools.cache
def encoders() -> Encoders:
    """The models of the example sites, as a replay loads them; loaded once in a process."""
    return load_encoders(site_of("office").models, recorded=True)


def processor() -> str:
    """The kind of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    wanted = ("model name", "flags")
    found = {line.split(":")[0].strip(): line for line in lines if line.startswith(wanted)}
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest() + "\n"


def _written(alerts: Sequence[Alert]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "alerts.jsonl"
        write_all(file, alerts)
        return file.read_bytes()


def write(scene: str, folder: Path) -> None:
    """Write the files of one scene anew."""
    of = played(scene, scene_file(scene, folder))
    packed = lzma.compress(msgspec.msgpack.encode(of.stored), preset=9)
    (HERE / f"{scene}.obs.xz").write_bytes(packed)
    (HERE / f"{scene}.jsonl").write_bytes(of.file)
    print(f"{scene}: {len(of.stored.entries)} observations, {len(packed)} bytes")
    assert judged(scene) == of.file, scene


def main(folder: Path) -> None:
    """Write the files of every scene anew; `folder` has those that are not shipped."""
    PROCESSOR.write_text(processor())
    for name in (*SCENES, DEMO):
        write(name, folder)


if __name__ == "__main__":
    if sys.argv[1:] == [DEMO]:
        assert processor() == PROCESSOR.read_text(), "another processor wrote the other files"
        write(DEMO, HERE)
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "../shared/scenes")
