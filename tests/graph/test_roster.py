"""A capture says its roster before the first chunk, and no chunk starts before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pipeline.judge.align import Aligner, Late, Unknown
from pipeline.topics import AUDIO
from pipeline.types import SECOND, AudioChunk, Chunk, Record, Roster, Sound, ns
from tests import make
from workers.capture.capture import Capture, CaptureSettings
from workers.runtime.status import Status

NOW = ns(1000)


class Recorded:
    """One life: what was captured before anything could be published."""

    def __init__(self, *chunks: Chunk) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._chunks)

    def close(self) -> None:
        """Nothing is open."""


def published(*chunks: Chunk) -> list[Record]:
    """What a new capture of the microphone `room` says first."""
    said: list[Record] = []

    def publish(topic: str, records: Sequence[Record]) -> None:
        said.extend(records)

    capture = Capture(
        CaptureSettings(site=make.SITE, sources=("room", "room/speech")),
        {"room": AUDIO},
        lambda count: Recorded(*chunks),
        publish=publish,
        status=Status(),
        clock=lambda: NOW,
        chance=lambda: 0.0,
    )
    capture.read(threading.Event())
    capture.publish_once()
    return said


def test_the_roster_comes_before_the_first_chunk_and_starts_no_later() -> None:
    heard = make.audio(999.5, seconds=0.5)
    roster, chunk = published(heard)
    assert isinstance(roster, Roster)
    assert chunk == heard
    assert roster.start == heard.start < NOW


def test_a_roster_starts_with_the_earliest_of_several_chunks() -> None:
    first, second = make.audio(999.0, seconds=0.5), make.audio(999.5, seconds=0.5, seq=1)
    roster, *chunks = published(first, second)
    assert chunks == [first, second]
    assert isinstance(roster, Roster)
    assert roster.start == first.start


def test_a_roster_does_not_start_in_the_future_of_a_chunk_that_does() -> None:
    """A device's clock may run ahead of ours."""
    roster, _ = published(make.audio(1000.5))
    assert isinstance(roster, Roster)
    assert roster.start == NOW


def test_what_a_new_microphone_heard_first_is_used() -> None:
    """Windows are open already when it comes: what starts before its roster would be late."""
    aligner = Aligner(make.SITE, ns(4), SECOND, horizon=ns(20))
    for record in (make.roster("desk", start=990), make.progress(999)):
        aligner.push(record)
    roster, chunk = published(make.audio(999.5, seconds=0.5))
    assert isinstance(chunk, AudioChunk)
    sound = Sound(site=make.SITE, source="room", start=chunk.start, end=chunk.end)
    named = Roster(site=make.SITE, source="room", sources=("desk", "room"), start=_start(roster))
    out = [output for record in (named, sound) for output in aligner.push(record)]
    assert not [output for output in out if isinstance(output, Late | Unknown)]
    assert aligner.held == 1


def _start(record: Record) -> int:
    assert isinstance(record, Roster)
    return record.start
