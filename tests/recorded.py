"""Entries of a small recorded site, and recordings of them, for tests."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline import codec, topics
from pipeline.ports import Entry
from pipeline.types import AudioChunk, FrameChunk, Record, ns
from tests.make import box, detections, progress, roster, sound
from workers.recordings.folder_writer import FolderWriter
from workers.recordings.metadata import About

BEGIN = 1_767_225_600  # s; 2026-01-01T00:00:00Z
JPEG = b"\xff\xd8" + random.Random(1).randbytes(10_000) + b"\xff\xd9"  # does not get smaller
Recorded = tuple[str, Entry]  # topic, entry


def entry(record: Record, offset: int, topic: str, partition: int = 0, trace: str = "") -> Entry:
    """The entry of a record on a topic."""
    key = topics.key_of(topic, record)
    return Entry(partition, offset, key, codec.encode(record), trace)


def frame(second: float, seq: int, *, site: str = "office", source: str = "desk") -> FrameChunk:
    """A frame, of bytes that are different for each `seq`."""
    return FrameChunk(
        site=site,
        source=source,
        start=ns(second),
        end=ns(second + 0.2),
        seq=seq,
        width=64,
        height=48,
        data=JPEG + seq.to_bytes(4, "big"),
        look="motion",
        motion=bytes(48),
        regions=((0.1, 0.2, 0.3, 0.4),),
    )


def audio(second: float, seq: int, *, source: str = "room") -> AudioChunk:
    """Half a second of sound."""
    return AudioChunk(
        site="office",
        source=source,
        start=ns(second),
        end=ns(second + 0.5),
        seq=seq,
        rate=16_000,
        channels=1,
        data=(seq % 100).to_bytes(2, "little") * 8000,
    )


def second_of(second: int) -> Iterator[tuple[str, Record]]:
    """What a site with one camera and one microphone puts on the bus in a second."""
    at = float(BEGIN + second)
    if second % 10 == 0:
        yield topics.OBSERVATIONS, roster("desk", "room", start=at)
    for half in range(2):
        yield topics.FRAMES, frame(at + half / 2, 2 * second + half)
        yield topics.AUDIO, audio(at + half / 2, 2 * second + half)
        yield topics.OBSERVATIONS, detections(at + half / 2, box(), seconds=0.5)
        yield topics.OBSERVATIONS, progress(at + half / 2 + 0.001)
    yield topics.OBSERVATIONS, sound(at, glass=0.25)
    yield topics.OBSERVATIONS, progress(at + 1, source="room")


def entries(seconds: int, first: int = 0) -> list[Recorded]:
    """The entries of so many seconds, in the order in which they came."""
    nexts: dict[str, int] = {}
    made = []
    for second in range(first + seconds):
        for topic, record in second_of(second):
            offset = nexts.get(topic, 0)
            nexts[topic] = offset + 1
            if second >= first:
                made.append((topic, entry(record, offset, topic, trace=f"00-{offset:032x}")))
    return made


def write(
    folder: Path, made: Iterable[Recorded], *, each: int = 50, finish: bool = True
) -> Sequence[Path]:
    """Records entries, with a chunk for each `each` of them; returns the files."""
    writer = FolderWriter(folder, About(log="test", since=ns(BEGIN)))
    for number, (topic, one) in enumerate(made):
        writer.add(topic, one)
        if number % each == each - 1:
            writer.flush()
    if finish:
        writer.close()
    else:
        writer.flush()
        writer.abandon()
    return sorted(folder.glob("*.mcap"))


def of_topic(made: Iterable[Recorded], topic: str) -> list[Entry]:
    """The entries of one topic."""
    return [one for name, one in made if name == topic]
