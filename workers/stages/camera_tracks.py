"""Tracks the objects of a site's cameras, frame by frame."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from pipeline.config.schema import Detect
from pipeline.judge.refusal import Obstacle, Unused
from pipeline.judge.refusal_words import below
from pipeline.judge.rules import MIN_EVIDENCE, TrackedFrame
from pipeline.tracking.frame_shape import shape_of
from pipeline.tracking.stationary import StationaryMemory, alike
from pipeline.tracking.track import Track, Tracker
from pipeline.types import Box, Detections

SAME_OBJECT = 0.5  # IoU from which a faint box is taken for a second one of an object
NOBODY_LOOKED = "nobody looked at the frame: nothing moves in it (detect.gate)"


class CameraTracks:
    """The tracks of each camera in `cameras`.

    An object is stationary if it moved less than `still_distance` heights in `still_after` ns.
    `explains`: frames say why a box is no track.
    """

    def __init__(
        self,
        cameras: Mapping[str, Detect],
        horizon: int,
        still_after: int,
        still_distance: float,
        *,
        explains: bool = False,
    ) -> None:
        self._cameras, self._explains = cameras, explains
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

    def needs(self, limit: int) -> int:
        """Returns the time, ns, from which on a restart must read to track as before at `limit`.

        The limit must not fall from call to call.
        """
        stood = limit - self._still_after  # who stands still at the limit was there by then
        trackers = (tracker.needs(stood) for tracker in self._trackers.values())
        return min([self._parked.needs(limit), *trackers, stood])

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
        tracker.reshape(shape_of(record))
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
        again = self._parked.again(record.source, record.start, tracks, still, tracker.begun)
        taken = {track.box for track in tracks if track.last_seen == record.start}
        return TrackedFrame(
            source=record.source,
            start=record.start,
            end=record.end,
            tracks=tracks,
            still=still,
            again=frozenset(again),
            luma=looked.luma,
            sharpness=looked.sharpness,
            loose=[box for box in boxes if box.bare() not in taken],
            hidden=tracker.hidden,
            gated=record.gated,
            aspect=shape_of(record),
            unused=list(self._unused(record, tracks, again)) if self._explains else (),
        )

    def _unused(
        self, record: Detections, tracks: Sequence[Track], again: Collection[int]
    ) -> Iterator[Unused]:
        """Why boxes of this frame are no tracks."""
        tracker, detect = self._trackers[record.source], self._cameras[record.source]
        if record.gated:
            yield Unused("gated", None, partial(Obstacle, NOBODY_LOOKED))
        else:
            for box in record.boxes:
                if box.score >= MIN_EVIDENCE and box.y2 - box.y1 < detect.min_height:
                    yield Unused("min_height", box, partial(_too_low, box, detect.min_height))
            for box in tracker.faint:
                ask = partial(_too_faint, box, detect.min_score, tracks)
                yield Unused("min_score", box, ask)
        for box, looks, wanted in tracker.young:
            yield Unused("looks", box, partial(_too_new, box, looks, wanted))
        for track in tracks:
            if track.id in again:
                yield Unused("place", track.box, partial(_stood_here, track.box))


def _too_low(box: Box, least: float) -> Obstacle:
    high = box.y2 - box.y1
    why = below(f"height of {box.label}", high, least, "min_height")
    return Obstacle(why, high, least, box.label)


def _too_faint(box: Box, least: float, tracks: Sequence[Track]) -> Obstacle:
    """A second box of an object that has a track stood in the way of nothing."""
    again = any(alike(box, track.box, SAME_OBJECT) for track in tracks)
    why = below(box.label, box.score, least, "min_score")
    return Obstacle(why, box.score, least, box.label, near=False if again else None)


def _too_new(box: Box, looks: int, wanted: int) -> Obstacle:
    why = f"{box.label} {box.score:.2f} was seen in {looks} of the {wanted} looks that confirm it"
    return Obstacle(why, looks, wanted, box.label, near=True)


def _stood_here(box: Box) -> Obstacle:
    why = f"{box.label} at the place of one that stood still, and was told"
    return Obstacle(why, box.score, label=box.label)
