"""Chooses the frame that shows an alert, and the boxes to draw in it.

The frame is that of the gravest finding of the camera, when it is near the alert's time; else the
last frame up to that time. Only objects of the alert's findings get a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline import codec, topics
from pipeline.errors import DecodeError
from pipeline.ports import Bus
from pipeline.types import SECOND, Alert, Box, Corners, Detections, Finding, FrameChunk

SHOWN_BEFORE = 3 * SECOND  # ns before the alert's time; a frame in this span still shows the event
SHOWN_AFTER = 1 * SECOND  # ns after it
# The least overlap (intersection over union) at which an object of another frame is the one that
# was found: a smaller one is often a neighbour.
MIN_OVERLAP = 0.1


class ShownFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame and its boxes: all objects of it, and those to draw, the gravest last.

    `boxes` is None when the frame was not processed. The label of a box to draw is its text. No box
    has a pose: no document needs one.
    """

    frame: FrameChunk
    boxes: tuple[Box, ...] | None
    drawn: tuple[Box, ...]


class AlertFrames:
    """The frames near an alert's time.

    `least` has the score by (site, camera) below which objects are ignored. Raises as `bus.fetch`.
    """

    def __init__(self, bus: Bus, alert: Alert, least: Mapping[tuple[str, str], float]) -> None:
        self._bus = bus
        self._alert = alert
        self._least = least
        self._seen: Mapping[str, dict[int, Detections]] | None = None

    def of(self, camera: str) -> ShownFrame | None:
        """Returns the frame of a camera that shows the alert; None if there is none near it."""
        alert = self._alert
        key = f"{alert.site}/{camera}"
        frames = [r for r in self._near(topics.FRAMES, key) if isinstance(r, FrameChunk)]
        seen = self._observed().get(camera, {})
        findings = found_objects(alert, camera)
        frame = best_frame(frames, seen, alert.time, [finding.at for finding in findings])
        if frame is None:
            return None
        boxes = _bare(seen[frame.start].boxes) if frame.start in seen else None
        least = self._least.get((alert.site, camera), 0.0)
        known = [box for box in boxes or () if box.score >= least]
        drawn = tuple(known) if is_older(alert) else marks(findings, frame.start, known)
        return ShownFrame(frame=frame, boxes=boxes, drawn=drawn)

    def _observed(self) -> Mapping[str, dict[int, Detections]]:
        """Camera -> start -> its Detections."""
        if self._seen is None:
            found: dict[str, dict[int, Detections]] = {}
            for record in self._near(topics.OBSERVATIONS, self._alert.site):
                if isinstance(record, Detections) and not record.gated:
                    found.setdefault(record.source, {})[record.start] = record
            self._seen = found
        return self._seen

    def _near(self, topic: str, key: str) -> list[Any]:
        """The records of `key` near the alert; skips undecodable bytes, which a stage has
        reported."""
        records, time = [], self._alert.time
        for value in self._bus.fetch(topic, key, time - SHOWN_BEFORE, time + SHOWN_AFTER):
            try:
                records.append(codec.decode(value))
            except DecodeError:
                continue
        return records


def _bare(boxes: Sequence[Box]) -> tuple[Box, ...]:
    return tuple(box.bare() for box in boxes)


def is_older(alert: Alert) -> bool:
    """Whether a version made the alert that told no findings: then every object gets a box."""
    return not any(finding.kind for finding in alert.findings)


def found_objects(alert: Alert, camera: str) -> list[Finding]:
    """The findings of a camera that have a place in its picture, the gravest first."""
    return [
        finding
        for finding in alert.findings
        if finding.kind in ("object", "behaviour")
        and finding.source == camera
        and finding.box is not None
    ]


def best_frame(
    frames: Sequence[FrameChunk], seen: Mapping[int, Detections], time: int, at: Sequence[int] = ()
) -> FrameChunk | None:
    """The frame to show: that of the first time in `at` that has one. Otherwise one with
    detections if possible; the last up to `time`, else the first after it."""
    starts = {frame.start: frame for frame in frames}
    for start in at:
        if start in starts:
            return starts[start]

    def rank(frame: FrameChunk) -> tuple[bool, bool, int]:
        return frame.start not in seen, frame.start > time, abs(frame.start - time)

    return min(frames, key=rank, default=None)


def marks(findings: Sequence[Finding], start: int, boxes: Sequence[Box]) -> tuple[Box, ...]:
    """The boxes to draw in the frame that starts at `start`, whose objects are `boxes`.

    A finding of this frame has its own box. One of another frame has that of the object of its
    class that overlaps it most, if any. Findings of one object share a box.
    """
    texts: dict[tuple[str, Corners], dict[str, float]] = {}  # (class, place) -> label -> score
    for finding in findings:
        if finding.box is None:
            continue
        if finding.at == start:
            place, score = finding.box, finding.score
        elif same := _same_object(finding.object, finding.box, boxes):
            place, score = corners(same), same.score
        else:
            continue
        texts.setdefault((finding.object, place), {}).setdefault(finding.label, score)
    made = [
        _box(_text(of, list(labels)), max(labels.values()), place)
        for (of, place), labels in texts.items()
    ]
    return tuple(reversed(made))


def corners(box: Box) -> Corners:
    """The corners of a box, as findings have them."""
    return box.x1, box.y1, box.x2, box.y2


def overlap(ours: Corners, other: Corners) -> float:
    """The intersection over union of two boxes, 0 to 1."""
    wide = min(ours[2], other[2]) - max(ours[0], other[0])
    high = min(ours[3], other[3]) - max(ours[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (ours, other))
    return wide * high / (both - wide * high)


def _same_object(of: str, place: Corners, boxes: Sequence[Box]) -> Box | None:
    close = [
        (share, box)
        for box in boxes
        if box.label == of and (share := overlap(place, corners(box))) >= MIN_OVERLAP
    ]
    return max(close, key=lambda each: each[0], default=(0.0, None))[1]


def _text(of: str, labels: Sequence[str]) -> str:
    """What is written beside a box: `person: intrusion, loitering`."""
    told = ", ".join(labels)
    return f"{of}: {told}" if of and of != told else told


def _box(text: str, score: float, place: Corners) -> Box:
    return Box(label=text, score=score, x1=place[0], y1=place[1], x2=place[2], y2=place[3])
