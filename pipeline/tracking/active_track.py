"""One object that a tracker follows: its motion, its path, its last pose and how it looks.

`Tracker` in `pipeline/tracking/track.py` owns these objects and decides which box belongs to which.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from pipeline.tracking.appearance import Looks
from pipeline.tracking.beginnings import Confirmations
from pipeline.types import SECOND, Box

# ns; of the points in one such span of event time, a path keeps the first. So what is kept does not
# depend on when the path began.
PATH_STEP = SECOND // 10
ACCELERATION = 0.4  # heights / s^1.5: noise of the motion model (white noise acceleration)
BOX_ERROR = 0.04  # heights: standard deviation of detected boxes
MIN_LOOKS = 3  # so many looks must miss an object before it is gone while nothing moves


class Point(NamedTuple):
    """A position of an object: the middle of its box's lower edge, in fractions of the frame."""

    time: int
    x: float
    y: float


class ActiveTrack:
    """The mutable state of a track; times in ns."""

    def __init__(
        self, number: int, box: Box, measured: np.ndarray, time: int, lasts: int, hits: int
    ) -> None:
        self.id, self.first, self.seen = number, time, time
        self.began, self.box = box, box.bare()  # its first box, and the last one
        self.found = 0  # when it was found again after it was hidden; 0: never
        self.lasts = lasts  # ns from the frame that showed it to the next one that was due
        self.hits, self.misses, self.told = 1, 0, False
        self.held = 0  # ns of gated frames since it was last seen
        self.motion = Motion(measured)
        self.path = deque([_feet(box, time)])
        self.pose = b""
        self.posed: int | None = None
        self.confirmed = Confirmations(hits, time)
        self.looks = Looks()
        self.look: np.ndarray | None = None  # of this frame, if the box shows it clearly
        self._take(box, time)

    def see(self, box: Box, measured: np.ndarray, time: int, horizon: int, lasts: int) -> None:
        """Adds the box of a frame."""
        self.motion.correct(measured)
        self._take(box, time)
        self.seen, self.lasts = time, lasts
        self.misses, self.held = 0, 0
        if len(self.path) > 1 and not _apart(self.path[-2].time, self.path[-1].time):
            self.path.pop()
        self.path.append(_feet(box, time))
        self._forget(time - horizon)

    def resume(self, other: ActiveTrack, horizon: int) -> None:
        """Goes on as `other`, a younger track of the same object, which ends."""
        self.found = other.first
        self.seen, self.lasts = other.seen, other.lasts
        self.hits += other.hits
        self.misses, self.held = other.misses, other.held
        while self.path and self.path[-1].time >= other.first:
            self.path.pop()
        self.motion, self.box = other.motion, other.box
        self.path.extend(other.path)
        self._forget(other.seen - horizon)
        if other.posed is not None:
            self.pose, self.posed = other.pose, other.posed
        self.looks.extend(other.looks)
        self.confirmed.resume(other.confirmed)

    def exchange(self, other: ActiveTrack, since: int) -> None:
        """Exchanges what was seen of two objects from `since` on: each was taken for the other."""
        for name in (
            "seen",
            "lasts",
            "misses",
            "held",
            "motion",
            "box",
            "look",
            "pose",
            "posed",
            "confirmed",
        ):
            mine, yours = getattr(self, name), getattr(other, name)
            setattr(self, name, yours)
            setattr(other, name, mine)
        mine, yours = ([p for p in one.path if p.time >= since] for one in (self, other))
        for one, later in ((self, yours), (other, mine)):
            one.path = deque([*(p for p in one.path if p.time < since), *later])
            one.found = self.seen

    def _forget(self, before: int) -> None:
        while self.path[0].time < before:
            self.path.popleft()

    def _take(self, box: Box, time: int) -> None:
        """Takes a box and its pose; a gated frame gives the box again, without a pose."""
        if box.keypoints:
            self.pose, self.posed = box.keypoints, time
        self.box = box.bare()

    def away(self, time: int) -> int:
        """For how many ns it has been unseen."""
        return time - self.seen - (self.held if self.misses < MIN_LOOKS else 0)


class Motion:
    """A constant-velocity Kalman filter over centre, shape and height.

    The four coordinates are independent, so each has a filter of two states, whose 2 x 2 covariance
    is three numbers: no matrix is inverted.
    """

    def __init__(self, measured: np.ndarray) -> None:
        self.mean = measured.copy()
        self._speed = np.zeros(4)
        scale = self._scale()
        self._pp, self._pv, self._vv = (2 * BOX_ERROR * scale) ** 2, np.zeros(4), scale**2

    def _scale(self) -> np.ndarray:
        height = max(float(self.mean[3]), 1e-3)
        return np.array([height, height, 0.3, height])  # the shape is a ratio, not a length

    @property
    def speed(self) -> tuple[float, float]:
        """To the right and down, in heights of the frame a second."""
        return float(self._speed[0]), float(self._speed[1])

    def predict(self, span: float) -> None:
        """Predicts the state `span` seconds ahead."""
        self.mean = self.mean + self._speed * span
        self.mean[2:] = np.maximum(self.mean[2:], 1e-3)
        noise = (ACCELERATION * self._scale()) ** 2
        self._pp = self._pp + 2 * span * self._pv + span**2 * self._vv + noise * span**3 / 3
        self._pv = self._pv + span * self._vv + noise * span**2 / 2
        self._vv = self._vv + noise * span

    def correct(self, measured: np.ndarray) -> None:
        """Corrects the state with a measured box."""
        total = self._pp + (BOX_ERROR * self._scale()) ** 2
        gain, speed_gain = self._pp / total, self._pv / total
        off = measured - self.mean
        self.mean, self._speed = self.mean + gain * off, self._speed + speed_gain * off
        self._vv = self._vv - speed_gain * self._pv
        self._pv = self._pv * (1 - gain)
        self._pp = self._pp * (1 - gain)


def _apart(one: int, other: int) -> bool:
    """Whether two times lie in different spans of `PATH_STEP`."""
    return one // PATH_STEP != other // PATH_STEP


def _feet(box: Box, time: int) -> Point:
    return Point(time, (box.x1 + box.x2) / 2, box.y2)
