"""Measures how many times real time a replay is, from media and from observations.

    python -m benchmarks.replay_speed MEDIA WEIGHTS [--seconds 120] [--hours 1]

One camera at 5 frames/s (MEDIA's office) and one microphone that hears speech, on two cores. The
observations of that replay are then repeated to `--hours` and judged again, with the shipped head.
Prints the factor by the wall clock, and by the seconds of CPU, which other load disturbs less.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.ports import Entry
from pipeline.types import Mode, Progress, Record, event_start, ns
from workers.config import loader
from workers.replay.observation_replay import Rejudging
from workers.replay.scene_records import load_scene
from workers.replay.scene_replay import replay
from workers.stages.encoders import load_encoders
from workers.stages.site_plan import load_heads

T = TypeVar("T")

CONFIG = Path(__file__).resolve().parents[1] / "deploy/examples/office.yaml"
SCENE = """
site: office
start: 2026-01-05T22:00:00Z
duration: {seconds}
cameras:
  desk: {{file: {media}/video/office_a.mp4, fps: 5, loop: true}}
microphones:
  room:
{clips}
"""
MEDIA_AIM, OBSERVATIONS_AIM = 10, 300


def measured(name: str, seconds: float, work: Callable[[], T], aim: float) -> T:
    """Runs `work` over so many seconds of event time, and prints its factors."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{name:28} {seconds:6.0f} s in {wall:6.1f} s: {seconds / wall:7.1f} times real time,"
        f" {seconds / cpu:7.1f} by one core; aim {aim}"
    )
    return result


def scene_file(folder: Path, media: Path, seconds: int) -> Path:
    """Writes the scene: every 20 s somebody speaks for some 6 s."""
    spoken = sorted((media / "speech").rglob("*.flac"))[:8]
    clips = "\n".join(
        f"    - {{file: {spoken[k % len(spoken)]}, at: {at}}}"
        for k, at in enumerate(range(2, seconds - 5, 20))
    )
    path = folder / "speed.yaml"
    path.write_text(SCENE.format(seconds=seconds, media=media, clips=clips))
    return path


def shifted(record: Record, by: int) -> Record:
    """The record `by` ns later."""
    match record:
        case Progress():
            return msgspec.structs.replace(record, upto=record.upto + by)
        case Mode():
            return msgspec.structs.replace(record, start=record.start + by, said=record.said + by)
        case _:
            times = {
                name: getattr(record, name) + by
                for name in ("start", "end")
                if name in record.__struct_fields__
            }
            return msgspec.structs.replace(record, **times)


def repeated(records: Sequence[Record], lasts: int, times: int) -> Iterator[Entry]:
    """The records of `lasts` ns, so many times one after the other, without their end."""
    begin = min(event_start(record) for record in records)
    offset = 0
    for turn in range(times):
        for record in records:
            if event_start(record) < begin + lasts:
                later = shifted(record, turn * lasts)
                yield Entry(0, offset, record.site, codec.encode(later))
                offset += 1


def main() -> None:
    """Prints the factors."""
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    ask.add_argument("media", type=Path)
    ask.add_argument("weights", type=Path)
    ask.add_argument("--seconds", type=int, default=120)
    ask.add_argument("--hours", type=float, default=1.0)
    given = ask.parse_args()
    os.environ["FUSEWATCH_WEIGHTS"] = str(given.weights.resolve())
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    settings = loader.load(CONFIG)
    encoders = load_encoders(settings.models, recorded=True)
    heads = load_heads(settings)
    with tempfile.TemporaryDirectory() as name:
        scene = load_scene(scene_file(Path(name), given.media.resolve(), given.seconds))
        bus = MemoryBus(keep=True)
        played = measured(
            "from media",
            given.seconds,
            lambda: replay(settings, scene, encoders, bus=bus),
            MEDIA_AIM,
        )
    records = [codec.decode(value) for value in bus.values(topics.OBSERVATIONS)]
    print(
        f"{len(played.alerts)} revisions; {len(records) / given.seconds:.1f} observations a second"
    )
    times = round(given.hours * 3600 / given.seconds)
    entries = list(repeated(records, ns(given.seconds), times))
    since = min(event_start(record) for record in records)
    until = since + ns(given.seconds) * times
    judge = Rejudging(settings, encoders, since, until, heads=heads)
    measured(
        "from observations",
        given.seconds * times,
        lambda: judge.feed(entries),
        OBSERVATIONS_AIM,
    )
    print(f"{len(judge.result().alerts)} revisions of {len(entries)} records")


if __name__ == "__main__":
    main()
