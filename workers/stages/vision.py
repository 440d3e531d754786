"""The vision stage: detects objects and poses in frames; no record depends on an earlier frame.

A frame with an empty `look` is gated: nothing moves in it, and nobody looks at it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from models.vision.person_crop import Person
from pipeline.config.schema import Detect
from pipeline.errors import DecodeError
from pipeline.limits import MAX_PIXELS
from pipeline.ports import Model
from pipeline.topics import FRAMES
from pipeline.types import (
    FOREVER,
    Box,
    DeadLetter,
    Detections,
    FrameChunk,
    Progress,
    Record,
)
from workers.media.appearance import described
from workers.media.image_quality import luma_and_sharpness
from workers.media.jpeg import Pixels, decoded
from workers.runtime.status import Ledger
from workers.stages.absent_encoders import guard
from workers.stages.audit import LookMemory, chosen
from workers.stages.overload import PICTURES_AT_ONCE, Backlog, FrameSampler, Who
from workers.stages.posed_persons import motion_in, posed_persons

Policy = Literal["newest", "all"]
Known = Mapping[Who, Detect] | None  # the cameras of the config; None: all


def within_limit(order: Sequence[int], frames: Mapping[int, FrameChunk]) -> Sequence[int]:
    """As many of the first frames as may be held decoded at once: `MAX_PIXELS`, at least one."""
    pixels = 0
    for count, index in enumerate(order):
        pixels += frames[index].width * frames[index].height
        if pixels > MAX_PIXELS and count:
            return order[:count]
    return order


class Uncounted:
    """A ledger that discards everything."""

    def count(self, site: str, source: str, what: str, n: int = 1) -> None:
        """Does nothing."""

    def counts(self, site: str, source: str, more: Mapping[str, int]) -> None:
        """Does nothing."""

    def reach(self, site: str, source: str, what: str, time: int) -> None:
        """Does nothing."""


class VisionResult(msgspec.Struct, frozen=True):
    """The boxes of a frame, and its luma and sharpness (units: `Detections`)."""

    boxes: tuple[Box, ...]
    luma: float
    sharpness: float
    audited: bool = False  # nothing moves in the frame


class SkippedFrame(msgspec.Struct, frozen=True):
    """Why a frame was not processed: `stale` (a newer one was there), `undecodable`, or `gated`."""

    what: Literal["stale", "undecodable", "gated"]
    reason: str = ""


def _is_known(record: Record, known: Known) -> bool:
    return known is None or (record.site, record.source) in known


def _detect(known: Known, frame: FrameChunk) -> Detect:
    """The camera's settings."""
    return Detect() if known is None else known[frame.site, frame.source]


class VisionStage:
    """frames.v1 -> observations.v1.

    `detector` takes pictures (BGR uint8, h x w x 3) and returns a tuple of Box for each. `policy`:
    `newest` processes as many frames as there is time for, the newest ones first and all cameras in
    turn (`FrameSampler`), and skips the rest, counted as `dropped.stale`; `all` processes every
    frame (replay). Boxes below `min_score` are not worth storing and are dropped; rules have
    thresholds of their own. A frame that cannot be decoded is counted as `dropped.undecodable` and
    reported in a DeadLetter and in its Progress. `timer` returns seconds. Frames of cameras that
    are not in `known` are dropped: the cameras left the config (None: all cameras are known).

    A gated frame is neither decoded nor looked at. It is counted as `gated.still` and gives
    Detections that say so. The part `detect.audit` of them is processed like the others and counted
    as `audited`, unless the policy `newest` leaves no time for it.

    `pose` takes persons (`Person`) and returns the bytes of `Box.keypoints` for each. It is asked
    for at most `detect.poses` persons of a frame (`posed_persons`), and never where that is 0 or
    not set.
    """

    def __init__(
        self,
        detector: Model,
        policy: Policy = "newest",
        min_score: float = 0.1,
        status: Ledger | None = None,
        timer: Callable[[], float] = time.perf_counter,
        known: Known = None,
        pose: Model | None = None,
        detector_high: Model | None = None,
    ) -> None:
        self._detectors = {"normal": detector, "high": detector_high or guard("detector_high")}
        self._min_score, self._known = min_score, known
        self._pose = pose or guard("pose")
        self._sampler = FrameSampler(timer) if policy == "newest" else None
        self._status = status or Uncounted()

    def watch(self, backlog: Backlog) -> None:
        """Takes the function that returns how many entries wait to be polled."""
        if self._sampler is not None:
            self._sampler.watch(backlog)

    def infer(self, batch: Sequence[Record]) -> Sequence[VisionResult | SkippedFrame | None]:
        """Processes the frames of a poll, all sources together; None for records of other types."""
        frames = {
            i: record
            for i, record in enumerate(batch)
            if isinstance(record, FrameChunk) and _is_known(record, self._known)
        }
        audited = [i for i, frame in frames.items() if not frame.look and self._audits(frame)]
        found: dict[int, VisionResult | SkippedFrame] = {
            i: SkippedFrame("stale" if frame.look else "gated") for i, frame in frames.items()
        }
        if self._sampler is None:
            order = [i for i, frame in frames.items() if frame.look or i in audited]
            while some := within_limit(order[:PICTURES_AT_ONCE], frames):
                found |= self._look({index: frames[index] for index in some})
                order = order[len(some) :]
        else:
            found |= self._sampled(self._sampler, frames, audited)
        for i in audited:
            if isinstance(result := found[i], VisionResult):
                found[i] = msgspec.structs.replace(result, audited=True)
        return [found.get(index) for index in range(len(batch))]

    def _sampled(
        self, sampler: FrameSampler, frames: Mapping[int, FrameChunk], audited: Sequence[int]
    ) -> dict[int, VisionResult | SkippedFrame]:
        """The results of the frames that there is time for."""
        found: dict[int, VisionResult | SkippedFrame] = {}
        turn, done = sampler.plan(frames, audited), 0
        while room := sampler.room(turn, done):
            some = within_limit(turn.order[done : done + room], frames)
            found |= self._look({index: frames[index] for index in some})
            done += len(some)
        sampler.looked(frames, (i for i, one in found.items() if isinstance(one, VisionResult)))
        return found

    def _audits(self, frame: FrameChunk) -> bool:
        return chosen(frame, _detect(self._known, frame).audit)

    def _look(self, frames: Mapping[int, FrameChunk]) -> dict[int, VisionResult | SkippedFrame]:
        """Decodes the frames and runs the detector on them; results by key."""
        found: dict[int, VisionResult | SkippedFrame] = {}
        pictures: dict[int, Pixels] = {}
        for index, frame in frames.items():
            try:
                pictures[index] = decoded(frame.data, frame.width, frame.height)
            except DecodeError as error:
                found[index] = SkippedFrame("undecodable", str(error))
        sure: dict[int, list[Box]] = {}
        for quality, detector in self._detectors.items():
            some = [i for i in pictures if self._quality(frames[i]) == quality]
            seen = detector([pictures[i] for i in some]) if some else ()
            for index, boxes in zip(some, seen, strict=True):
                sure[index] = [box for box in boxes if box.score >= self._min_score]
        self._add_poses(frames, pictures, sure)
        for index, boxes in sure.items():
            picture = pictures[index]
            found[index] = VisionResult(described(picture, boxes), *luma_and_sharpness(picture))
        return found

    def _quality(self, frame: FrameChunk) -> str:
        return _detect(self._known, frame).quality

    def _add_poses(
        self,
        frames: Mapping[int, FrameChunk],
        pictures: Mapping[int, Pixels],
        sure: Mapping[int, list[Box]],
    ) -> None:
        """Puts poses into the boxes of the frames; nothing runs where there is nobody."""
        wanted = [
            (index, n)
            for index, boxes in sure.items()
            for n in posed_persons(frames[index], boxes, _detect(self._known, frames[index]))
        ]
        if not wanted:
            return
        poses = self._pose([Person(pictures[index], sure[index][n]) for index, n in wanted])
        for (index, n), keypoints in zip(wanted, poses, strict=True):
            box = sure[index][n]
            motion = round(motion_in(frames[index].motion, box) / 255, 3)
            sure[index][n] = msgspec.structs.replace(box, keypoints=keypoints, motion=motion)

    def open(self, floors: dict[str, int]) -> _VisionState:
        """Returns a state that keeps nothing but what its counts need."""
        return _VisionState(self._status, self._known)


class _VisionState:
    def __init__(self, status: Ledger, known: Known) -> None:
        self._status, self._known = status, known
        self._looks: dict[Who, LookMemory] = defaultdict(LookMemory)

    def on(self, record: Record, inferred: VisionResult | SkippedFrame | None) -> Sequence[Record]:
        """Detections and Progress for a frame; Progress and Roster pass unchanged."""
        if not isinstance(record, FrameChunk):
            return (record,)
        if not _is_known(record, self._known):
            return ()
        site, source = record.site, record.source
        moved = Progress(site=site, source=source, upto=record.start + 1)
        self._status.reach(site, source, "processed", record.start)
        match inferred:
            case VisionResult(boxes=boxes, luma=luma, sharpness=sharpness):
                self._status.count(site, source, "processed")
                if posed := sum(bool(box.keypoints) for box in boxes):
                    self._status.count(site, source, "posed", posed)
                self._judge(record, inferred)
                found = Detections(
                    site=site,
                    source=source,
                    start=record.start,
                    end=record.end,
                    boxes=boxes,
                    luma=luma,
                    sharpness=sharpness,
                )
                return found, moved
            case SkippedFrame(what="gated"):
                self._status.count(site, source, "gated.still")
                start, end = record.start, record.end
                unseen = Detections(site=site, source=source, start=start, end=end, gated=True)
                return unseen, moved
            case SkippedFrame(what="undecodable", reason=reason):
                self._status.count(site, source, "dropped.undecodable")
                dead = DeadLetter(
                    site=site,
                    source=source,
                    topic=FRAMES,
                    partition=0,  # a state does not know the offset; `seq` identifies the frame
                    offset=0,
                    reason=f"frame {record.seq} cannot be decoded: {reason}",
                    value=b"",
                )
                return dead, msgspec.structs.replace(moved, reason=f"undecodable: {reason}")
            case _:
                self._status.count(site, source, "dropped.stale")
                return (moved,)

    def _judge(self, frame: FrameChunk, seen: VisionResult) -> None:
        """Counts an audited frame, and remembers what any frame showed."""
        looks = self._looks[frame.site, frame.source]
        if seen.audited:
            missed = looks.misses(seen.boxes, _detect(self._known, frame))
            if missed is not None:
                self._status.counts(
                    frame.site, frame.source, {"audited": 1, "audited.missed": int(missed)}
                )
        looks.looked(seen.boxes)

    def floor(self, site: str) -> int:
        """FOREVER: nothing that a record depends on is held. Ns."""
        return FOREVER
