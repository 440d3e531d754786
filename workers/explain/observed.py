"""Keeps what was seen, heard and said in a span, and small pictures of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.types import (
    SECOND,
    Anomaly,
    Described,
    Detections,
    FrameChunk,
    Progress,
    Record,
    Sound,
    Utterance,
    event_start,
)
from workers.bus.history import History
from workers.media import jpeg

MOST_PICTURES = 24  # of a camera
LONGEST_SIDE = 320  # px; of a picture
_WANTED = (Detections, Sound, Utterance, Described, Progress)
Observation = Detections | Sound | Utterance | Described

Take = Callable[[str, bytes], None]  # topic, value


class Picture(msgspec.Struct, frozen=True):
    """A small JPEG of a camera's frame at `time`, ns."""

    time: int
    data: bytes


class Observed:
    """The observations, anomalies and pictures of one site in `[since, until)`, ns.

    `keep` returns what is left of a record, or None. `pictures`: whether they are wanted.
    """

    def __init__(
        self,
        site: str,
        since: int,
        until: int,
        *,
        keep: Callable[[Record], Record | None] = lambda record: record,
        pictures: bool = False,
    ) -> None:
        self.since, self.until = since, until
        self.observations: list[Observation] = []
        self.anomalies: list[Anomaly] = []
        self.lost: dict[str, list[int]] = {}  # source -> times of which it was lost, ns
        self.pictures: dict[str, list[Picture]] = {}
        self._site, self._keep, self._wants_pictures = site, keep, pictures
        self._step = max((until - since) // MOST_PICTURES, SECOND)
        self._due: dict[str, int] = {}

    def take(self, topic: str, value: bytes) -> None:
        """Takes a record of a topic; what is of no use here is passed over."""
        wanted = topic in (topics.OBSERVATIONS, topics.ANOMALIES)
        if not wanted and not (topic == topics.FRAMES and self._wants_pictures):
            return
        try:
            record = codec.decode(value)
        except DecodeError:
            return
        if record.site != self._site or not self.since <= event_start(record) < self.until:
            return
        kept = self._keep(record)
        match kept:
            case FrameChunk():
                self._picture(kept)
            case Anomaly():
                self.anomalies.append(kept)
            case Progress(alive=False) if topic == topics.OBSERVATIONS:
                self.lost.setdefault(kept.source, []).append(kept.upto)
            case Sound(early=True):
                pass
            case Detections() | Sound() | Utterance() | Described():
                self.observations.append(msgspec.structs.replace(kept, embedding=b""))

    @property
    def times(self) -> Sequence[int]:
        """The times of which pictures are wanted, ns."""
        return range(self.since, self.until, self._step)

    def _picture(self, frame: FrameChunk) -> None:
        due = self._due.get(frame.source, self.since)
        if frame.start < due:
            return
        try:
            pixels = jpeg.decoded(frame.data, frame.width, frame.height)
        except DecodeError:
            return
        small = jpeg.within(jpeg.shrunk(pixels, LONGEST_SIDE), 24_000, 30, 80)
        if small:
            self.pictures.setdefault(frame.source, []).append(Picture(frame.start, small))
        behind = (frame.start - self.since) // self._step
        self._due[frame.source] = self.since + (behind + 1) * self._step


class TappedBus(MemoryBus):
    """A bus in memory that shows every record to `take`."""

    def __init__(self, take: Take) -> None:
        super().__init__()
        self._take = take

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        """Shows and publishes a record."""
        self._take(topic, value)
        super().publish(topic, key, value, trace)


class TappedHistory:
    """Stored entries, of which each observation is shown to `take` once."""

    def __init__(self, stored: History, take: Take) -> None:
        self._stored, self._take = stored, take
        self._reached: dict[int, int] = {}  # partition -> offset

    def between(self, topic: str, start: int, end: int) -> Iterator[Entry]:
        """As `History.between`."""
        for entry in self._stored.between(topic, start, end):
            new = entry.offset > self._reached.get(entry.partition, -1)
            if new and topic == topics.OBSERVATIONS:
                self._reached[entry.partition] = entry.offset
                self._take(topic, entry.value)
            yield entry

    def appended(self, topic: str, start: int = 0) -> Iterator[Entry]:
        """As `History.appended`."""
        return self._stored.appended(topic, start)

    def oldest(self, topic: str) -> Mapping[int, int]:
        """As `History.oldest`."""
        return self._stored.oldest(topic)


def take_pictures(stored: History, into: Observed) -> None:
    """Takes those pictures of a span that are still stored."""
    for time in into.times:
        for entry in stored.between(topics.FRAMES, time, time + SECOND):
            into.take(topics.FRAMES, entry.value)
