"""Tracks the objects of a site's cameras, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.schema import Detect
from pipeline.judge.rules import MIN_EVIDENCE, TrackedFrame
from pipeline.judge.track import StationaryMemory, Tracker
from pipeline.types import Detections


class CameraTracks:
    """The tracks of each camera in `cameras`.

    An object is stationary if it moved less than `still_distance` heights in `still_after` ns.
    """

    def __init__(
        self, cameras: Mapping[str, Detect], horizon: int, still_after: int, still_distance: float
    ) -> None:
        self._cameras = cameras
        self._still_after, self._still_distance = still_after, still_distance
        self._trackers = {
            camera: Tracker(
                high=detect.min_score,
                low=min(MIN_EVIDENCE, detect.min_score),
                horizon=horizon,
            )
            for camera, detect in cameras.items()
        }
        self._looked: dict[str, Detections] = {}  # camera -> its last frame that was looked at
        self._parked = StationaryMemory(still_after, still_distance, horizon)

    def see(self, record: Detections) -> TrackedFrame | None:
        """Returns the tracks after this frame; None if it is of no use."""
        detect = self._cameras.get(record.source)
        if detect is None:  # the config no longer has this camera
            return None
        tracker = self._trackers[record.source]
        if tracker.time is not None and record.start <= tracker.time:
            return None  # never from our vision stage: its Progress makes such a record a repeat
        boxes = [
            box
            for box in record.boxes
            if box.score >= MIN_EVIDENCE and box.y2 - box.y1 >= detect.min_height
        ]
        # Sorted by position, not by id: a restart gives new ids, and ordinals must not change.
        at, lasts = record.start, record.end - record.start
        held = tracker.hold(at, lasts) if record.gated else tracker.update(boxes, at, lasts)
        looked = self._looked.get(record.source, record) if record.gated else record
        self._looked[record.source] = looked
        tracks = sorted(
            held,
            key=lambda t: (t.label, t.box.x1, t.box.y1, t.box.x2, t.box.y2, t.score),
        )
        still = frozenset(
            track.id
            for track in tracks
            if record.start - track.first_seen >= self._still_after
            and track.moved(self._still_after) < self._still_distance
        )
        again = self._parked.again(record.source, record.start, tracks, still)
        taken = {track.box for track in tracks if track.last_seen == record.start}
        return TrackedFrame(
            source=record.source,
            start=record.start,
            end=record.end,
            tracks=[track for track in tracks if track.id not in again],
            still=still,
            luma=looked.luma,
            sharpness=looked.sharpness,
            loose=[box for box in boxes if box.bare() not in taken],
            hidden=tracker.hidden,
            gated=record.gated,
        )
