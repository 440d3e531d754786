"""Seeing: frames in, detections out; nothing is remembered from one frame to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from pipeline.errors import DecodeError
from pipeline.ports import Model
from pipeline.topics import FRAMES
from pipeline.types import FOREVER, Box, DeadLetter, Detections, FrameChunk, Progress, Record
from workers.decode import Pixels, decoded
from workers.status import Ledger

Policy = Literal["newest", "all"]
AT_ONCE = 16  # decoded pictures held in memory, and the detector's largest batch


class Uncounted:
    """A ledger that nobody reads."""

    def count(self, site: str, source: str, what: str, n: int = 1) -> None:
        """Do nothing."""


class Seen(msgspec.Struct, frozen=True):
    """What the detector found in a frame."""

    boxes: tuple[Box, ...]


class Unseen(msgspec.Struct, frozen=True):
    """Why a frame was not looked at: `stale` (a newer one was there) or `undecodable`."""

    what: Literal["stale", "undecodable"]
    reason: str = ""


class VisionStage:
    """frames.v1 -> observations.v1.

    `detector` takes pictures (BGR uint8, h x w x 3) and gives a tuple of Box each. `policy`:
    `newest` looks at the newest frame of each source in a poll and lets the others go, counted as
    `dropped.stale`; `all` looks at every frame (replay). `min_score` cuts off what is not worth
    keeping in the log; rules have thresholds of their own. A frame that cannot be decoded is
    counted as `dropped.undecodable`, and told in a DeadLetter and in its Progress.
    """

    def __init__(
        self,
        detector: Model,
        policy: Policy = "newest",
        min_score: float = 0.1,
        status: Ledger | None = None,
    ) -> None:
        self._detector, self._policy, self._min_score = detector, policy, min_score
        self._status = status or Uncounted()

    def infer(self, batch: Sequence[Record]) -> Sequence[Seen | Unseen | None]:
        """Look at the frames of a poll, over all sources at once; None for what is no frame."""
        results: list[Seen | Unseen | None] = [None] * len(batch)
        newest: dict[tuple[str, str], tuple[int, int]] = {}  # source -> latest (start, index)
        for index, record in enumerate(batch):
            if isinstance(record, FrameChunk):
                key = record.site, record.source
                newest[key] = max(newest.get(key, (record.start, index)), (record.start, index))
        pictures: list[Pixels] = []
        places: list[int] = []

        def look() -> None:
            for place, boxes in zip(places, self._detector(pictures), strict=True):
                results[place] = Seen(tuple(b for b in boxes if b.score >= self._min_score))
            pictures.clear()
            places.clear()

        for index, record in enumerate(batch):
            if not isinstance(record, FrameChunk):
                continue
            if self._policy == "newest" and newest[record.site, record.source][1] != index:
                results[index] = Unseen("stale")
                continue
            try:
                pictures.append(decoded(record.data, record.width, record.height))
                places.append(index)
            except DecodeError as error:
                results[index] = Unseen("undecodable", str(error))
            if len(pictures) == AT_ONCE:
                look()
        if pictures:
            look()
        return results

    def open(self, floors: dict[str, int]) -> _VisionState:
        """A state that needs nothing of the past."""
        return _VisionState(self._status)


class _VisionState:
    def __init__(self, status: Ledger) -> None:
        self._status = status

    def on(self, record: Record, inferred: Seen | Unseen | None) -> Sequence[Record]:
        """Detections and Progress for a frame; Progress and Roster pass as they are."""
        if not isinstance(record, FrameChunk):
            return (record,)
        site, source = record.site, record.source
        moved = Progress(site=site, source=source, upto=record.start + 1)
        match inferred:
            case Seen(boxes=boxes):
                self._status.count(site, source, "processed")
                found = Detections(
                    site=site, source=source, start=record.start, end=record.end, boxes=boxes
                )
                return found, moved
            case Unseen(what="undecodable", reason=reason):
                self._status.count(site, source, "dropped.undecodable")
                dead = DeadLetter(
                    site=site,
                    source=source,
                    topic=FRAMES,
                    partition=0,  # a state knows no offset; `seq` leads to the frame
                    offset=0,
                    reason=f"frame {record.seq} cannot be decoded: {reason}",
                    value=b"",
                )
                return dead, msgspec.structs.replace(moved, reason=f"undecodable: {reason}")
            case _:
                self._status.count(site, source, "dropped.stale")
                return (moved,)

    def floor(self, site: str) -> int:
        """Nothing is held."""
        return FOREVER
