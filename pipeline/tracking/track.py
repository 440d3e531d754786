"""Tracks the objects of one camera: links the boxes of single frames into tracks.

ByteTrack (Zhang et al. 2022, arXiv:2110.06864): boxes with a high score are matched to tracks
first; boxes with a low score only continue existing tracks. Two differences: frames come at any
rate, so the motion model runs in seconds; and boxes are enlarged before they are compared (buffered
IoU, Yang et al. 2023, arXiv:2211.14317), because at 5 frames/s the boxes of a walking person hardly
overlap. `docs/explanations/tracking.md` has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from pipeline.tracking.active_track import ActiveTrack, Point
from pipeline.tracking.appearance import OTHER, clear_looks, unlike
from pipeline.tracking.beginnings import Gone
from pipeline.tracking.frame_shape import WIDE
from pipeline.tracking.identity import HiddenTracks, Meetings
from pipeline.types import SECOND, Box

MAX_SPAN = 2.0  # s; the motion model looks no further ahead than this
FRAMES_MISSED = 3  # for so many frames an object may be unseen, however far they are apart
LOOKS_COUNT = 0.4  # how much of the likeness of a pair the looks decide
UNCLEAR = 3  # so many boxes more it takes where it is not clear who it is
HIDDEN = 12 * SECOND  # ns; for so long an object that vanished inside the picture is remembered
FAITH = 600 * SECOND  # ns; for so long at most faint boxes alone keep an object


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an object after an update; times in ns.

    The object was seen in this update if `last_seen` is the update's time; otherwise `box` is its
    last known box. `path` is oldest first, ends with `feet`, and reaches back at most to `horizon`,
    as `first_seen` and `posed` do. `pose` is the last pose of the object (`Box.keypoints`; empty:
    none), and `posed` is the time of its frame. Frames without a pose of the object leave both as
    they are. `box` has neither pose nor appearance.

    `found` is when it was found again: when it came out of a hiding place, or when it was seen that
    it had been taken for another object. It is 0 if it never was.
    """

    id: int
    label: str
    score: float
    box: Box
    first_seen: int
    last_seen: int
    path: tuple[Point, ...]
    aspect: float  # of the frame, width / height
    pose: bytes = b""
    posed: int | None = None
    found: int = 0

    @property
    def sight(self) -> tuple[int, int]:
        """A key of what was seen of it since it was found; nobody saw its way before."""
        return self.id, self.found

    @property
    def feet(self) -> Point:
        """The position where it was last seen."""
        return self.path[-1]

    @property
    def previous(self) -> Point | None:
        """The position before that; None after the first box."""
        return self.path[-2] if len(self.path) > 1 else None

    def moved(self, span: int) -> float:
        """Returns how far it moved in the `span` ns before it was last seen, in heights of its box.

        It is the ninth decile of the distances from the present position. A box that flickers now
        and then is not movement, and an object that starts to walk is at once far from all earlier
        positions.
        """
        here = self.feet
        points = [point for point in self.path if point.time >= here.time - span]
        away = sorted(
            math.hypot((point.x - here.x) * self.aspect, point.y - here.y)
            for point in points[:: max(1, len(points) // 60)]
        )
        return away[(len(away) - 1) * 9 // 10] / max(self.box.y2 - self.box.y1, 1e-3)


class Tracker:
    """Tracks the objects of one camera, each label separately.

    A track starts with a box of at least `high`, is returned after `hits` boxes (without two misses
    in a row), continues with boxes of at least `low`, and is deleted when unseen for `unseen` ns,
    or for three frames if that is longer. `aspect` is the frame's width / height. Ids count from 1
    in each Tracker. `horizon` bounds the memory. A gated frame is one that nobody looked at,
    because nothing moves in it: the tracker gets it by `hold` in place of `update`.

    A track also ends when for `faith` ns, or for the horizon if that is longer, no boxes came that
    would have confirmed a new one. So `needs` can tell what a restart must read to find it.

    Where boxes have an appearance, it decides between boxes that fit a track about equally well. An
    object that vanishes inside the picture is hidden for `HIDDEN` ns at most; if it comes out, its
    track goes on (`HiddenTracks`).
    """

    def __init__(
        self,
        *,
        high: float = 0.4,
        low: float = 0.1,
        hits: int = 3,
        unseen: int = 2 * SECOND,
        horizon: int = 120 * SECOND,
        faith: int = FAITH,
        aspect: float = WIDE,
        buffer: float = 0.1,
    ) -> None:
        if not 0 <= low <= high <= 1 or hits < 1 or min(unseen, horizon) <= 0:
            msg = f"Tracker: low {low} <= high {high}, hits {hits} and all spans must be positive"
            raise ValueError(msg)
        self._high, self._low, self._hits = high, low, hits
        self._unseen, self._horizon, self._faith = unseen, horizon, max(faith, horizon)
        self._aspect, self._buffer = aspect, buffer
        self._live: list[ActiveTrack] = []
        self._hidden = HiddenTracks(min(HIDDEN, horizon // 2), aspect)
        self._gone = Gone()
        self._meetings = Meetings()
        self._rows: Mapping[Box, np.ndarray] = {}  # the looks of the boxes of this update
        self._time: int | None = None
        self._lasts = 0  # ns until the next frame is due
        self._last_id = 0
        self.faint: list[Box] = []  # of the last look: too faint to begin a track

    @property
    def young(self) -> list[tuple[Box, int, int]]:
        """The objects that are not confirmed: a box, its looks, and how many there must be."""
        return [(one.box, one.hits, self._hits) for one in self._live if not one.told]

    @property
    def time(self) -> int | None:
        """The time of the last update, ns; None before the first."""
        return self._time

    def reshape(self, aspect: float) -> None:
        """Sets the width / height of the next frames."""
        self._aspect = self._hidden.aspect = aspect

    @property
    def hidden(self) -> frozenset[int]:
        """The ids of objects that are hidden; no track shows them."""
        return self._hidden.ids

    def needs(self, limit: int) -> int:
        """Returns the time, ns, from which on a restart must read to know at `limit` who is there.

        The limit must not fall from call to call.
        """
        return self._gone.needs((one.confirmed.begun for one in self._live), limit)

    def begun(self, number: int, time: int) -> int:
        """Returns the time, ns, from which on a restart must read to know a track at `time`."""
        found = (one.confirmed.begun for one in self._live if one.id == number)
        return next((begun.before(time) for begun in found), time)

    def update(self, boxes: Sequence[Box], time: int, lasts: int = 0) -> tuple[Track, ...]:
        """Adds one frame's boxes, possibly none, and returns the confirmed tracks, by id.

        `lasts` is the ns until the next frame is due, if known. Raises ValueError when `time` is
        not later than that of the last update.
        """
        span = min(self._advance(time, lasts) / SECOND, MAX_SPAN)
        self.faint = []
        self._rows = clear_looks(boxes, self._high)
        for one in self._live:
            one.motion.predict(span)
        for label in sorted({box.label for box in boxes} | {one.box.label for one in self._live}):
            self._associate(label, [box for box in boxes if box.label == label], time)
        for one in self._live:
            if one.seen == time and one.box.score >= self._high:
                one.confirmed.sure(time, self._patience(one))
            else:
                one.confirmed.unsure()
        self._live = [one for one in self._live if one.told or one.misses < 2]
        self._exchange(time)
        self._confirm()
        return tuple(self._track(one, time) for one in self._live if one.told)

    def hold(self, time: int, lasts: int = 0) -> tuple[Track, ...]:
        """Adds a gated frame and returns the confirmed tracks, by id.

        An object that the last look showed counts as seen at its last box; this confirms no track.
        For an object that the last look missed, time stands still until `MIN_LOOKS` looks have
        missed it. Raises ValueError when `time` is not later than that of the last update.
        """
        span = self._advance(time, lasts)
        for one in self._live:
            one.confirmed.hold(time, span)
            if one.misses:
                one.held += span
            else:
                one.motion.predict(min(span / SECOND, MAX_SPAN))
                one.see(one.box, self._measure(one.box), time, self._horizon, lasts)
        return tuple(self._track(one, time) for one in self._live if one.told)

    def _advance(self, time: int, lasts: int) -> int:
        """Deletes the tracks that are gone at `time`; returns the ns since the last update."""
        if self._time is not None and time <= self._time:
            msg = f"time must grow: {time} ns came after {self._time} ns"
            raise ValueError(msg)
        span = 0 if self._time is None else time - self._time
        self._time, self._lasts = time, lasts
        gone = {one.id for one in self._live if self._ends(one, time)}
        for one in self._live:
            if one.id in gone:
                self._hidden.hide(one)
                if one.told:
                    self._gone.add(one.confirmed.begun, time + HIDDEN)
        self._live = [one for one in self._live if one.id not in gone]
        self._hidden.forget(time)
        return span

    def _ends(self, one: ActiveTrack, time: int) -> bool:
        unseen = one.away(time) > self._patience(one)
        return unseen or time - one.confirmed.begun.newest > self._faith

    def _exchange(self, time: int) -> None:
        """Rights the tracks that were exchanged, and remembers how the objects look."""
        seen = [one for one in self._live if one.seen == time]
        for one, other, since in self._meetings.see([one for one in seen if one.told], time):
            one.exchange(other, since)
        for one in seen:
            if one.look is not None and (not one.told or one.looks.fits(time, one.look)):
                one.looks.add(time, one.look)
        for one in self._live:
            one.looks.forget(time - self._horizon)

    def _confirm(self) -> None:
        """Tells new tracks; objects that came out of a hiding place get the track that they had."""
        ready = [one for one in self._live if not one.told and one.hits >= self._hits]
        missed = [one for one in self._live if one.told and one.misses]
        young = {one.id for one in ready if one.hits < self._hits + UNCLEAR}
        for new, old in self._hidden.returned(ready, missed, young):
            old.resume(new, self._horizon)
            self._live = [one for one in self._live if one.id not in (new.id, old.id)]
            self._live.append(old)
            ready.remove(new)
        self._live.sort(key=lambda one: one.id)
        for one in ready:
            one.told = one.id not in young or not self._hidden.unclear(one, missed)

    def _patience(self, one: ActiveTrack) -> int:
        """For how many ns it may be unseen: three frames, of those that come now, or that came when
        it was seen, are enough."""
        return max(self._unseen, FRAMES_MISSED * max(one.lasts, self._lasts))

    def _associate(self, label: str, boxes: list[Box], time: int) -> None:
        tracks = [one for one in self._live if one.box.label == label]
        sure = [box for box in boxes if box.score >= self._high]
        unsure = [box for box in boxes if self._low <= box.score < self._high]
        # Confirmed tracks match first, or a false box beside a person takes the person's box.
        told = [one for one in tracks if one.told]
        new = [one for one in tracks if not one.told]
        told, sure = self._match(told, sure, 0.1, time)
        told, faint = self._match(told, unsure, 0.3, time)
        self.faint += faint
        new, sure = self._match(new, sure, 0.1, time)
        for one in told + new:
            one.misses += 1
        for box in sure:
            self._last_id += 1
            one = ActiveTrack(self._last_id, box, self._measure(box), time, self._lasts, self._hits)
            one.look = self._rows.get(box)
            self._live.append(one)

    def _match(
        self, tracks: list[ActiveTrack], boxes: list[Box], at_least: float, time: int
    ) -> tuple[list[ActiveTrack], list[Box]]:
        """Assigns boxes to tracks, the best pair first; returns the unmatched tracks and boxes."""
        if not tracks or not boxes:
            return tracks, boxes
        measured = np.array([self._measure(box) for box in boxes])
        likeness = _overlaps(np.array([one.motion.mean for one in tracks]), measured, self._buffer)
        # Of two boxes with equal overlap the higher score wins.
        likeness *= np.array([box.score for box in boxes]) ** 0.5
        self._compare(tracks, boxes, likeness, at_least)
        taken_tracks, taken_boxes = set(), set()
        for row, column in _greedy(likeness, at_least):
            one, box = tracks[row], boxes[column]
            one.hits += 1
            one.see(box, measured[column], time, self._horizon, self._lasts)
            one.look = self._rows.get(box)
            taken_tracks.add(row)
            taken_boxes.add(column)
        return (
            [one for row, one in enumerate(tracks) if row not in taken_tracks],
            [box for column, box in enumerate(boxes) if column not in taken_boxes],
        )

    def _compare(
        self, tracks: list[ActiveTrack], boxes: list[Box], likeness: np.ndarray, at_least: float
    ) -> None:
        """Changes the likeness of pairs whose looks are known."""
        for row, column in np.argwhere(likeness >= at_least):
            one, look = tracks[row], self._rows.get(boxes[column])
            if look is None or not one.looks:
                continue
            unlikeness = unlike(one.looks.rows, look[None])
            if one.misses and unlikeness > OTHER:
                likeness[row, column] = 0  # somebody else came out of the hiding place
            else:
                weight = 1 - LOOKS_COUNT * min(unlikeness / OTHER, 1.0)
                likeness[row, column] = max(at_least, weight * likeness[row, column])

    def _measure(self, box: Box) -> np.ndarray:
        """Returns centre x and y, width / height, and height; lengths in heights of the frame."""
        width, height = (box.x2 - box.x1) * self._aspect, max(box.y2 - box.y1, 1e-3)
        return np.array(
            [(box.x1 + box.x2) / 2 * self._aspect, (box.y1 + box.y2) / 2, width / height, height]
        )

    def _track(self, one: ActiveTrack, time: int) -> Track:
        known = one.posed is not None and one.posed >= time - self._horizon
        return Track(
            id=one.id,
            label=one.box.label,
            score=one.box.score,
            box=one.box,
            first_seen=max(one.first, time - self._horizon),
            last_seen=one.seen,
            path=tuple(one.path),
            aspect=self._aspect,
            pose=one.pose if known else b"",
            posed=one.posed if known else None,
            found=one.found,
        )


def _overlaps(tracks: np.ndarray, boxes: np.ndarray, buffer: float) -> np.ndarray:
    """Returns the IoU of each track (n, 4) with each box (m, 4), both enlarged by `buffer`
    per side."""
    low_a, high_a = _corners(tracks, buffer)
    low_b, high_b = _corners(boxes, buffer)
    common = np.minimum(high_a[:, None], high_b) - np.maximum(low_a[:, None], low_b)
    shared = np.clip(common, 0, None).prod(2)
    both = (high_a - low_a).prod(1)[:, None] + (high_b - low_b).prod(1) - shared
    result: np.ndarray = shared / np.maximum(both, 1e-12)
    return result


def _corners(shapes: np.ndarray, buffer: float) -> tuple[np.ndarray, np.ndarray]:
    half = shapes[:, [3, 3]] * np.stack([shapes[:, 2], np.ones(len(shapes))], 1)
    half = half * (0.5 + buffer)
    return shapes[:, :2] - half, shapes[:, :2] + half


def _greedy(likeness: np.ndarray, at_least: float) -> Iterator[tuple[int, int]]:
    """Yields pairs (row, column), the most similar first, each row and column once."""
    rows, columns = np.nonzero(likeness >= at_least)
    order = np.argsort(-likeness[rows, columns], kind="stable")
    used_rows, used_columns = set(), set()
    for index in order:
        row, column = int(rows[index]), int(columns[index])
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            yield row, column
