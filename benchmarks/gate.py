"""Measures what the gate of the cameras forgets: a gated run beside a run that looks at each frame.

    python -m benchmarks.gate MEDIA --scenes FOLDER [--composed 100] [--seed 13] [--processes 2]

The scenes are those of FOLDER (each `SITE-NAME.yaml`, with `deploy/examples/SITE.yaml` as its
config) and `--composed` scenes that are composed of the clips of MEDIA, not recorded. Each is
replayed twice with the same config but for `detect.gate`.

- found: the share of the incidents of the ungated run that the gated run has, with all labels.
- delay: of the first revision with a label, gated minus ungated, by event time.
- missed: of the audited frames, those that show an object that no look before showed. The audit
  takes 1 % of the gated frames; the census beside it takes all, with what the ungated run saw.
- gated: the share of gated frames, and that of frames at least a second from every truth and, where
  the manifest says when a person is visible, from every person. Of the latter: why the others were
  looked at.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config
from pipeline.types import FOREVER, SECOND, Alert, Detections, FrameChunk
from workers.config import loader
from workers.media import recordings
from workers.media.motion import LOOKS
from workers.replay.scene_file import Scene, load_scene
from workers.replay.scene_replay import Replayed, ReplayOptions, replay
from workers.runtime.process_pool import pool
from workers.runtime.status import Status
from workers.stages.audit import LookMemory
from workers.stages.encoders import Encoders, load_encoders
from workers.training.clip_manifest import manifest_path, read
from workers.training.compose import compose
from workers.training.ground_truth import truth
from workers.training.video_cache import VideoCache

EXAMPLES = Path(__file__).parents[1] / "deploy/examples"
FAR = SECOND  # ns; a frame is quiet if every truth and person is at least so far away
LATE = 0.6  # s
Visible = Mapping[str, Sequence[tuple[float, float]] | None]  # video -> s; None: always


class Job(NamedTuple):
    """One scene with its config."""

    config: str
    scene: str


class Thing(msgspec.Struct, frozen=True):
    """A label of an incident: when it was first told, and in what span it lasted; ns."""

    incident: str
    group: str
    label: str
    told: int
    start: int
    end: int


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of one scene."""

    name: str
    incidents: int
    found: int
    delays: tuple[float, ...]  # s, of each label of each incident found
    lost: tuple[str, ...]  # the labels that the gated run lacks or tells late
    more: int  # labels of the gated run that the ungated run lacks
    counts: dict[str, int]
    frames: dict[str, Counter[str]]  # video -> frames: gated, quiet, empty, and by look


def main() -> None:
    """Prints the comparison."""
    ask = argparse.ArgumentParser()
    ask.add_argument("media", type=Path)
    ask.add_argument("--scenes", type=Path, help="a folder of scenes with truth")
    ask.add_argument("--composed", type=int, default=100)
    ask.add_argument("--seed", type=int, default=13)
    ask.add_argument("--processes", type=int, default=0, help="one a core")
    asked = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "composed"
        jobs = list(_shared(asked.scenes)) if asked.scenes else []
        if asked.composed:
            compose(asked.media, out, scenes=asked.composed, seed=asked.seed)
            jobs += [Job(str(out / "config.yaml"), str(s)) for s in sorted(out.glob("*/*.yaml"))]
        groups = [list(some) for _, some in groupby(jobs, key=lambda job: job.config)]
        judged: list[Judged] = []
        for some in groups:
            with pool(_ready, some[0].config, str(asked.media), count=asked.processes) as workers:
                for one in workers.map(_compare, some):
                    judged.append(one)
                    print(f"{one.name}: {one.found} of {one.incidents}", *one.lost, flush=True)
    for line in report(judged):
        print(line)


def _shared(folder: Path) -> Iterator[Job]:
    scenes = sorted(folder.glob("*.yaml"))
    for scene in scenes:
        yield Job(str(EXAMPLES / f"{scene.stem.partition('-')[0]}.yaml"), str(scene))


class Memo:
    """A model that keeps its results: both runs ask the same, and scenes share their videos."""

    def __init__(self, model: Any) -> None:
        self._model, self._known = model, dict[int, Any]()

    def __call__(self, batch: Sequence[Any]) -> list[Any]:
        keys = [
            hash(item if isinstance(item, str) else bytes(memoryview(item).cast("B")))
            for item in batch
        ]
        for key, item in zip(keys, batch, strict=True):
            if key not in self._known:
                (self._known[key],) = self._model([item])
        return [self._known[key] for key in keys]


_films = VideoCache()  # of this process
_ours: list[tuple[Config, Encoders, Visible]] = []


def _ready(config: str, media: str) -> None:
    settings = loader.load(Path(config))
    single = {
        name: replace(getattr(settings.models, name), threads=1)
        for name in settings.models.__struct_fields__
    }
    made = load_encoders(replace(settings.models, **single), recorded=True)
    models = ("detector", "sound", "voice", "speech", "text")
    made = replace(made, **{name: Memo(getattr(made, name)) for name in models})
    clips = read(manifest_path(Path(media), None), Path(media)).clips
    visible: Visible = {
        Path(clip.path).stem: None if clip.always else clip.visible
        for clip in clips
        if clip.kind == "video"
    }
    _ours.append((settings, made, visible))


def _compare(job: Job) -> Judged:
    settings, encoders, visible = _ours[0]
    scene = load_scene(Path(job.scene))
    runs = {gate: _played(_gated(settings, gate), scene, encoders) for gate in ("off", "auto")}
    (first, _, seen), (bus, gated, told) = runs["off"], runs["auto"]
    ours, theirs = list(things(seen.alerts)), list(things(told.alerts))
    delays, lost, short = [], [], set()
    for thing in ours:
        same = [t for t in theirs if _same(t, thing)]
        late = (min(t.told for t in same) - thing.told) / SECOND if same else None
        at = (thing.told - scene.start) / SECOND
        if late is None:
            short.add(thing.incident)
            lost.append(f"{thing.label} at {at:.1f} s is lost")
        else:
            delays.append(late)
            if late > LATE:
                lost.append(f"{thing.label} at {at:.1f} s is {late:.1f} s late")
    incidents = {thing.incident for thing in ours}
    counts = Counter[str]()
    for by_source in gated.snapshot().counts.values():
        for said in by_source.values():
            counts.update({k: n for k, n in said.items() if k.startswith(("audited", "gated.st"))})
    counts.update(_census(first, bus, settings, scene))
    return Judged(
        name=scene.path.stem,
        incidents=len(incidents),
        found=len(incidents - short),
        delays=tuple(delays),
        lost=tuple(lost),
        more=sum(not any(_same(t, o) for o in ours) for t in theirs),
        counts=dict(counts),
        frames=_frames(bus, scene, visible),
    )


def _gated(settings: Config, gate: str) -> Config:
    sites = {
        name: replace(
            site,
            cameras={
                camera: replace(one, detect=replace(one.detect, gate=gate))
                for camera, one in site.cameras.items()
            },
        )
        for name, site in settings.sites.items()
    }
    return replace(settings, sites=sites)


def _played(
    settings: Config, scene: Scene, encoders: Encoders
) -> tuple[MemoryBus, Status, Replayed]:
    bus = MemoryBus()
    played = replay(settings, scene, encoders, bus=bus, study=ReplayOptions(film=_films))
    return bus, played.status, played


def things(alerts: Sequence[Alert]) -> Iterator[Thing]:
    """Each label of each incident."""
    by_id: dict[str, list[Alert]] = {}
    for alert in alerts:
        by_id.setdefault(alert.id, []).append(alert)
    for number, revisions in by_id.items():
        last = revisions[-1]
        for label in last.labels:
            first = next(alert for alert in revisions if label in alert.labels)
            end = FOREVER if last.end is None else last.end
            yield Thing(number, last.group, label, first.time, last.start, end)


def _same(one: Thing, other: Thing) -> bool:
    alike = one.label == other.label and one.group == other.group
    return alike and one.start <= other.end and other.start <= one.end


def _census(looked: MemoryBus, gated: MemoryBus, of: Config, scene: Scene) -> Counter[str]:
    """Every gated frame is judged as an audited one, by what the ungated run saw in it."""
    full = {(d.source, d.start): d for d in _records(looked, topics.OBSERVATIONS, Detections)}
    memories: dict[str, LookMemory] = {}
    found = Counter[str]()
    for one in _records(gated, topics.OBSERVATIONS, Detections):
        memory = memories.setdefault(one.source, LookMemory())
        boxes = full[one.source, one.start].boxes
        if one.gated:
            missed = memory.misses(boxes, of.sites[scene.site].cameras[one.source].detect)
            if missed is not None:
                found["census"] += 1
                found["census.missed"] += missed
        else:
            memory.looked(boxes)
    return found


def _frames(bus: MemoryBus, scene: Scene, visible: Visible) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    spans = [(start, end) for start, end, _ in truth(scene)]
    for chunk in _records(bus, topics.FRAMES, FrameChunk):
        camera = scene.cameras[chunk.source]
        file = (scene.path.parent / camera.file).resolve()
        counted = found.setdefault(file.stem, Counter())
        still = not chunk.look
        quiet = all(chunk.end + FAR <= a or b + FAR <= chunk.start for a, b in spans)
        counted.update(frames=1, gated=still, quiet=quiet, quiet_gated=quiet and still)
        seen = visible.get(file.stem, ())
        if seen is not None:  # in a loop, the film's time begins anew
            at = (chunk.start - scene.start) / SECOND - float(camera.at)
            at %= float(recordings.video_length(file, whole=True))
            empty = quiet and all(at + 1 <= a or b + 1 <= at for a, b in seen)
            counted.update({"empty": empty, "empty_gated": empty and still, chunk.look: empty})
    return found


def _records(bus: MemoryBus, topic: str, kind: type[Any]) -> Iterator[Any]:
    for value in bus.values(topic):
        record = codec.decode(value)
        if isinstance(record, kind):
            yield record


def report(judged: Sequence[Judged]) -> Iterator[str]:
    """The lines of the result."""
    incidents, found = sum(j.incidents for j in judged), sum(j.found for j in judged)
    delays = sorted(delay for j in judged for delay in j.delays)
    counts, frames = Counter[str](), dict[str, Counter[str]]()
    for one in judged:
        counts.update(one.counts)
        for film, some in one.frames.items():
            frames.setdefault(film, Counter()).update(some)
    yield f"{len(judged)} scenes, {incidents} incidents: found {found}, {_share(found, incidents)}"
    if delays:
        late = sum(delay > LATE for delay in delays)
        yield (
            f"{len(delays)} labels: delay median {statistics.median(delays):.2f} s, "
            f"best {delays[0]:.2f} s, worst {delays[-1]:.2f} s, {late} later than {LATE} s; "
            f"{sum(j.more for j in judged)} labels more than without the gate"
        )
    for name in ("audited", "census"):
        missed, of = counts[f"{name}.missed"], counts[name]
        yield f"{name}: {of} frames, {missed} missed, {_share(missed, of)}"
    for film, of in sorted(frames.items()):
        yield (
            f"{film}: {of['frames']} frames, gated {_share(of['gated'], of['frames'])}; "
            f"without truth {_share(of['quiet_gated'], of['quiet'])}; "
            f"without truth or person {_share(of['empty_gated'], of['empty'])} of {of['empty']}, "
            f"looked at: {', '.join(f'{of[look]} {look}' for look in LOOKS if look and of[look])}"
        )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else "-"


if __name__ == "__main__":
    main()
