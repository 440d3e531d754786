"""What was observed comes in place of chunks that are missing, however far a stage was behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline import topics
from pipeline.ports import Entry
from pipeline.types import FOREVER, Record, event_start, ns
from tests.make import detections, sound
from tests.recorded import BEGIN, audio, entry, frame
from workers.config import loader
from workers.stored.chunks import Chunk, chunks_between

OFFICE = loader.load(Path(__file__).parents[2] / "deploy/examples/office.yaml")
LONG = 40  # s


class Stored:
    """A history of these records, each topic in this order."""

    def __init__(self, records: Mapping[str, Sequence[Record]]) -> None:
        self._records = records

    def between(self, topic: str, *_: int) -> Iterator[Entry]:
        for offset, record in enumerate(self._records.get(topic, ())):
            yield entry(record, offset, topic)


def found(seen: Sequence[Record], heard: Sequence[Record], told: Sequence[Record]) -> list[Chunk]:
    stored = Stored({topics.FRAMES: seen, topics.AUDIO: heard, topics.OBSERVATIONS: told})
    return list(chunks_between(OFFICE, stored, 0, FOREVER))  # type: ignore[arg-type]


def watched() -> tuple[list[Record], list[Record]]:
    """Frames of five a second, and sound by half seconds."""
    return (
        [frame(BEGIN + n / 5, n) for n in range(LONG * 5)],
        [audio(BEGIN + n / 2, n) for n in range(LONG * 2)],
    )


def watched_told(behind: tuple[float, float]) -> list[Record]:
    """What was seen and heard, by a vision and a hearing that were behind by so many seconds."""
    looked = [detections(BEGIN + n / 5, seconds=0.2) for n in range(LONG * 5)]
    listened = [sound(BEGIN + k, glass=0.25) for k in range(LONG)]
    by = {"desk": ns(behind[0]), "room": ns(behind[1])}
    return sorted((*looked, *listened), key=lambda one: one.end + by[one.source])


@given(behind=st.tuples(st.floats(0, 3 * LONG), st.floats(0, 3 * LONG)))
def test_a_stage_that_is_behind_the_other_has_all_its_chunks(behind: tuple[float, float]) -> None:
    seen, heard = watched()
    told = watched_told(behind)
    assert [one for one in found(seen, heard, told) if one.topic == topics.OBSERVATIONS] == []


@given(behind=st.tuples(st.floats(0, LONG), st.floats(0, LONG)), hole=st.integers(8, LONG - 20))
def test_what_was_heard_comes_in_the_place_of_sound_that_is_lost(
    behind: tuple[float, float], hole: int
) -> None:
    seen, heard = watched()
    heard = [one for one in heard if not ns(BEGIN + hole) <= one.start < ns(BEGIN + hole + 10)]
    told = watched_told(behind)
    instead = [one for one in found(seen, heard, told) if one.topic == topics.OBSERVATIONS]
    starts = [event_start(one.record) for one in instead if one.record is not None]
    assert starts == [ns(BEGIN + hole + k) for k in range(10)]
