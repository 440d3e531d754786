"""Boxes of single frames become tracks: who is the same from frame to frame, in one camera.

ByteTrack (Zhang et al. 2022, arXiv:2110.06864): sure boxes find their tracks first, unsure ones
only keep tracks alive that exist. What differs: frames come at any rate, so the motion model runs
in seconds; and boxes are enlarged before they are compared (buffered IoU, Yang et al. 2023,
arXiv:2211.14317), for at 5 frames/s a walker's boxes hardly overlap. `docs/tracking.md` has what
was measured.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from pipeline.types import SECOND, Box

PATH_STEP = SECOND // 10  # ns; of three points of a path the outer ones are so far apart, or more
MAX_SPAN = 2.0  # s; the motion model looks no further ahead than this
ACCELERATION = 0.4  # heights / s^1.5: how unsteadily objects move (white noise acceleration)
BOX_ERROR = 0.04  # heights: how far detected boxes are off


class Point(NamedTuple):
    """Where an object stood: the middle of its box's lower edge, fractions of the frame."""

    time: int
    x: float
    y: float


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """An object as it is known after an update; times in ns.

    It was seen in this very update if `last_seen` is the update's time, else `box` is the last
    known. `path` is oldest first, ends with `feet`, and reaches back to `horizon` at most, as
    `first_seen` does.
    """

    id: int
    label: str
    score: float
    box: Box
    first_seen: int
    last_seen: int
    path: tuple[Point, ...]
    aspect: float  # of the frame, width / height

    @property
    def feet(self) -> Point:
        """Where it stood when last seen."""
        return self.path[-1]

    @property
    def previous(self) -> Point | None:
        """Where it stood before that; None for the first sight."""
        return self.path[-2] if len(self.path) > 1 else None

    def moved(self, span: int) -> float:
        """How far it has gone within the last `span` ns of its sight, in heights of its box.

        The ninth decile of the distances from where it is now: a box that flickers now and then
        is no walk, and who starts to walk is far from all of the past at once.
        """
        here = self.feet
        points = [point for point in self.path if point.time >= here.time - span]
        away = sorted(
            math.hypot((point.x - here.x) * self.aspect, point.y - here.y)
            for point in points[:: max(1, len(points) // 60)]
        )
        return away[(len(away) - 1) * 9 // 10] / max(self.box.y2 - self.box.y1, 1e-3)


class Tracker:
    """Follows the objects of one camera; each label by itself.

    A track begins with a box of at least `high`, is told after `hits` boxes (without two misses in
    a row), goes on with boxes of at least `low`, and is forgotten when unseen for `unseen` ns,
    which should be three frames or more. `aspect` is the frame's width / height. Ids count from 1
    in each Tracker. Memory is bounded by `horizon`.
    """

    def __init__(
        self,
        *,
        high: float = 0.4,
        low: float = 0.1,
        hits: int = 3,
        unseen: int = 2 * SECOND,
        horizon: int = 120 * SECOND,
        aspect: float = 16 / 9,
        buffer: float = 0.1,
    ) -> None:
        if not 0 <= low <= high <= 1 or hits < 1 or min(unseen, horizon) <= 0:
            msg = f"Tracker: low {low} <= high {high}, hits {hits} and all spans must be positive"
            raise ValueError(msg)
        self._high, self._low, self._hits = high, low, hits
        self._unseen, self._horizon = unseen, horizon
        self._aspect, self._buffer = aspect, buffer
        self._live: list[_Live] = []
        self._time: int | None = None
        self._last_id = 0

    @property
    def time(self) -> int | None:
        """Of the last update, ns; None before the first."""
        return self._time

    def update(self, boxes: Sequence[Box], time: int) -> tuple[Track, ...]:
        """Take one frame's boxes; no boxes still move time. The told tracks, by id.

        Raises ValueError when `time` is not later than that of the last update.
        """
        if self._time is not None and time <= self._time:
            msg = f"time must grow: {time} ns came after {self._time} ns"
            raise ValueError(msg)
        span = 0.0 if self._time is None else min((time - self._time) / SECOND, MAX_SPAN)
        self._time = time
        self._live = [one for one in self._live if time - one.seen <= self._unseen]
        for one in self._live:
            one.motion.predict(span)
        for label in sorted({box.label for box in boxes} | {one.box.label for one in self._live}):
            self._associate(label, [box for box in boxes if box.label == label], time)
        self._live = [one for one in self._live if one.told or one.misses < 2]
        return tuple(self._track(one, time) for one in self._live if one.told)

    def _associate(self, label: str, boxes: list[Box], time: int) -> None:
        tracks = [one for one in self._live if one.box.label == label]
        sure = [box for box in boxes if box.score >= self._high]
        unsure = [box for box in boxes if self._low <= box.score < self._high]
        # Told tracks choose before new ones, else a flicker beside a person takes the person's box.
        told = [one for one in tracks if one.told]
        new = [one for one in tracks if not one.told]
        told, sure = self._match(told, sure, 0.1, time)
        told, _ = self._match(told, unsure, 0.3, time)
        new, sure = self._match(new, sure, 0.1, time)
        for one in told + new:
            one.misses += 1
        for box in sure:
            self._last_id += 1
            one = _Live(self._last_id, box, self._measure(box), time)
            one.told = one.hits >= self._hits
            self._live.append(one)

    def _match(
        self, tracks: list[_Live], boxes: list[Box], at_least: float, time: int
    ) -> tuple[list[_Live], list[Box]]:
        """Give boxes to tracks, the best pair first; returns what is left of both."""
        if not tracks or not boxes:
            return tracks, boxes
        measured = np.array([self._measure(box) for box in boxes])
        likeness = _overlaps(np.array([one.motion.mean for one in tracks]), measured, self._buffer)
        # A sure box beats an unsure one of equal overlap.
        likeness *= np.array([box.score for box in boxes]) ** 0.5
        taken_tracks, taken_boxes = set(), set()
        for row, column in _greedy(likeness, at_least):
            one, box = tracks[row], boxes[column]
            one.see(box, measured[column], time, self._horizon)
            one.told = one.told or one.hits >= self._hits
            taken_tracks.add(row)
            taken_boxes.add(column)
        return (
            [one for row, one in enumerate(tracks) if row not in taken_tracks],
            [box for column, box in enumerate(boxes) if column not in taken_boxes],
        )

    def _measure(self, box: Box) -> np.ndarray:
        """Centre x and y, width / height, height; all in heights of the frame."""
        width, height = (box.x2 - box.x1) * self._aspect, max(box.y2 - box.y1, 1e-3)
        return np.array(
            [(box.x1 + box.x2) / 2 * self._aspect, (box.y1 + box.y2) / 2, width / height, height]
        )

    def _track(self, one: _Live, time: int) -> Track:
        return Track(
            id=one.id,
            label=one.box.label,
            score=one.box.score,
            box=one.box,
            first_seen=max(one.first, time - self._horizon),
            last_seen=one.seen,
            path=tuple(one.path),
            aspect=self._aspect,
        )


class Parked:
    """Where objects of all cameras have come to rest, so that one that is lost from sight for a
    while and found again in its place is no news.

    `after` ns without moving `distance` heights is rest; a place is kept for `horizon` ns.
    """

    def __init__(self, after: int, distance: float, horizon: int) -> None:
        self._after, self._distance, self._horizon = after, distance, horizon
        self._places: dict[tuple[str, int], tuple[Box, int]] = {}  # (camera, track) -> box, when
        self._again: set[tuple[str, int]] = set()  # tracks of something that was at rest before

    def again(
        self, camera: str, time: int, tracks: Sequence[Track], still: frozenset[int]
    ) -> set[int]:
        """The ids of young tracks that are an object at rest, seen again; `still` are at rest."""
        self._places = {
            key: (box, seen)
            for key, (box, seen) in self._places.items()
            if time - seen < self._horizon or key[0] != camera
        }
        places = [box for key, (box, _) in self._places.items() if key[0] == camera]
        found = {
            track.id
            for track in tracks
            if track.moved(self._after) < self._distance
            and (
                (camera, track.id) in self._again
                or (track.id not in still and any(_alike(track.box, box) for box in places))
            )
        }
        self._again = {key for key in self._again if key[0] != camera}
        self._again |= {(camera, number) for number in found}
        for track in tracks:
            if track.id in still or track.id in found:
                self._places[camera, track.id] = (track.box, time)
        return found


class _Live:
    """A track under work: what Tracker alone may change."""

    def __init__(self, number: int, box: Box, measured: np.ndarray, time: int) -> None:
        self.id, self.box, self.first, self.seen = number, box, time, time
        self.hits, self.misses, self.told = 1, 0, False
        self.motion = _Motion(measured)
        self.path = deque([_feet(box, time)])

    def see(self, box: Box, measured: np.ndarray, time: int, horizon: int) -> None:
        self.motion.correct(measured)
        self.box, self.seen = box, time
        self.hits, self.misses = self.hits + 1, 0
        if len(self.path) > 1 and time - self.path[-2].time < PATH_STEP:
            self.path.pop()
        self.path.append(_feet(box, time))
        while self.path[0].time < time - horizon:
            self.path.popleft()


class _Motion:
    """Constant velocity Kalman filter over centre, shape and height.

    The four coordinates do not influence each other, so each is a filter of two states of its own
    and its 2 x 2 covariance is three numbers: no matrix is ever inverted.
    """

    def __init__(self, measured: np.ndarray) -> None:
        self.mean = measured.copy()
        self._speed = np.zeros(4)
        scale = self._scale()
        self._pp, self._pv, self._vv = (2 * BOX_ERROR * scale) ** 2, np.zeros(4), scale**2

    def _scale(self) -> np.ndarray:
        height = max(float(self.mean[3]), 1e-3)
        return np.array([height, height, 0.3, height])  # the shape has no length

    def predict(self, span: float) -> None:
        """Move `span` seconds on."""
        self.mean = self.mean + self._speed * span
        self.mean[2:] = np.maximum(self.mean[2:], 1e-3)
        noise = (ACCELERATION * self._scale()) ** 2
        self._pp = self._pp + 2 * span * self._pv + span**2 * self._vv + noise * span**3 / 3
        self._pv = self._pv + span * self._vv + noise * span**2 / 2
        self._vv = self._vv + noise * span

    def correct(self, measured: np.ndarray) -> None:
        """Learn from a box."""
        total = self._pp + (BOX_ERROR * self._scale()) ** 2
        gain, speed_gain = self._pp / total, self._pv / total
        off = measured - self.mean
        self.mean, self._speed = self.mean + gain * off, self._speed + speed_gain * off
        self._vv = self._vv - speed_gain * self._pv
        self._pv = self._pv * (1 - gain)
        self._pp = self._pp * (1 - gain)


def _feet(box: Box, time: int) -> Point:
    return Point(time, (box.x1 + box.x2) / 2, box.y2)


def _overlaps(tracks: np.ndarray, boxes: np.ndarray, buffer: float) -> np.ndarray:
    """IoU of each track (n, 4) with each box (m, 4), both enlarged by `buffer` on every side."""
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
    """Pairs (row, column), the most alike first, each row and column once."""
    rows, columns = np.nonzero(likeness >= at_least)
    order = np.argsort(-likeness[rows, columns], kind="stable")
    used_rows, used_columns = set(), set()
    for index in order:
        row, column = int(rows[index]), int(columns[index])
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            yield row, column


def _alike(one: Box, other: Box, least: float = 0.7) -> bool:
    """Whether two boxes of one label cover the same place (intersection over union)."""
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    if one.label != other.label or wide <= 0 or high <= 0:
        return False
    areas = sum((box.x2 - box.x1) * (box.y2 - box.y1) for box in (one, other))
    return wide * high >= least * (areas - wide * high)
