"""Follows the persons of one camera from frame to frame, also where the tracker loses them.

A person who falls changes shape within a second, and a detector is unsure of a person who lies. So
the track ends, and boxes with a low score are all that is left. Here a person continues with such
a box if it lies where the person was last seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec.structs import replace

from pipeline.behaviour.posture import Posture, posture
from pipeline.judge.rules import TrackedFrame
from pipeline.tracking.active_track import MIN_LOOKS
from pipeline.tracking.beginnings import Beginnings, Gone
from pipeline.tracking.track import FAITH
from pipeline.types import SECOND, Box

PERSON = "person"
REACH = 3 * SECOND  # ns; how far back postures are remembered
UNSEEN = 3 * SECOND  # ns; a person who is unseen for longer is forgotten
BEGINS = 0.2  # the lowest score of a box with which a person begins
NEAR = 0.4  # the shared part of the smaller of two boxes, from which they show one person
LEAST = 0.2  # of the area of the last box
# ns; a person who has had no track and no box that could begin one for so long is forgotten. While
# nothing moves, this time stands still, but not for longer than the tracker keeps a faint object.
DOUBT = 60 * SECOND


class Person:
    """One person: the last box, and the postures of the last seconds, oldest first."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.track: tuple[int, int] | None = None  # `Track.sight` of what shows the person
        self.past: deque[tuple[int, Posture]] = deque()
        self.box: Box
        self.held = 0  # ns of gated frames since the last box
        self.misses = 0  # looks since the last box
        self.sure = 0  # ns; when a track or a box with a high score last showed the person
        self.tracked = False  # whether a track gave the last box
        self.begun = Beginnings()  # when a box alone would have begun this person

    @property
    def seen(self) -> int:
        """The time of the last box, ns."""
        return self.past[-1][0]

    @property
    def now(self) -> Posture:
        """The last posture."""
        return self.past[-1][1]

    def away(self, time: int) -> int:
        """For how many ns the person has been unseen."""
        return time - self.seen - (self.held if self.misses < MIN_LOOKS else 0)

    def see(self, box: Box, aspect: float, time: int, *, sure: bool, looked: bool = True) -> None:
        """Adds the box of a frame; in one that nobody looked at, it is the last box again."""
        self.box, self.held, self.misses = box, 0, 0
        if sure:
            self.sure = time
        if looked and (box.score >= BEGINS or not self.past):
            self.begun.add(time)
        self.past.append((time, posture(box, aspect)))
        while self.past[0][0] < time - REACH:
            self.past.popleft()


class Persons:
    """All persons of one camera; `horizon`, ns, is how far back the site is remembered."""

    def __init__(self, horizon: int = 0) -> None:
        self._faith = max(FAITH, horizon)
        self._gone = Gone()
        self._known: list[Person] = []
        self._time = 0  # ns; of the last frame
        self._last = 0

    def see(self, frame: TrackedFrame) -> Sequence[Person]:
        """Takes the next frame; returns the persons who are not forgotten, by their place."""
        if frame.gated:
            self._hold(frame)
        else:
            self._look(frame)
        self._time = frame.start
        for one in self._known:
            if not self._lasts(one):
                self._gone.add(one.begun, frame.start)
        self._known = [one for one in self._known if self._lasts(one)]
        return sorted(self._known, key=lambda one: place(one.box))

    def needs(self, limit: int) -> int:
        """Returns the time, ns, from which on a restart must read to know at `limit` who is there.

        The limit must not fall from call to call.
        """
        return self._gone.needs((one.begun for one in self._known), limit)

    def _lasts(self, one: Person) -> bool:
        """Whether a person is not forgotten."""
        time, away = self._time, one.away(self._time)
        if away > UNSEEN or (not one.tracked and time - one.begun.newest > self._faith):
            return False
        return away > 0 or time - one.sure <= DOUBT

    def _hold(self, frame: TrackedFrame) -> None:
        """Nothing has moved: who was seen is seen again, and for the others time stands still."""
        for one in self._known:
            if one.seen == self._time:
                one.see(one.box, frame.aspect, frame.start, sure=True, looked=False)
            else:
                one.held += frame.start - self._time

    def _look(self, frame: TrackedFrame) -> None:
        time = frame.start
        shown = [t for t in frame.tracks if t.label == PERSON and t.last_seen == time]
        by_track = {one.track: one for one in self._known}
        for track in sorted(shown, key=lambda track: track.sight not in by_track):
            one = by_track.get(track.sight) or self._unseen_at(track.box, time) or self._begun()
            one.track = track.sight
            box = replace(track.box, keypoints=track.pose) if track.posed == time else track.box
            one.see(box, frame.aspect, time, sure=True)
            one.tracked = True
        for box in frame.loose:
            self._continue(box, frame)
        for one in self._known:
            one.misses += one.seen < time

    def _continue(self, box: Box, frame: TrackedFrame) -> None:
        """Takes a box of no track: of a person that is unseen, of a new one, or of nobody."""
        shown = (one for one in self._known if one.seen == frame.start)
        if box.label != PERSON or any(near(box, one.box) for one in shown):
            return
        one = self._unseen_at(box, frame.start)
        if one is None and box.score >= BEGINS:
            one = self._begun()
        if one is not None:
            one.see(box, frame.aspect, frame.start, sure=box.score >= BEGINS)
            one.tracked = False

    def _unseen_at(self, box: Box, time: int) -> Person | None:
        """The unseen person whose last box is most like this one, if one is near."""
        near_by = [one for one in self._known if one.seen < time and near(one.box, box)]
        return max(
            near_by,
            key=lambda one: (overlap(one.box, box), one.seen, place(one.box)),
            default=None,
        )

    def _begun(self) -> Person:
        self._last += 1
        one = Person(self._last)
        self._known.append(one)
        return one


def place(box: Box) -> tuple[float, ...]:
    """A sort key that depends on the box alone."""
    return box.x1, box.y1, box.x2, box.y2, box.score


def near(one: Box, other: Box) -> bool:
    """Whether two boxes may show one person."""
    shared = _shared(one, other)
    small, large = sorted((_area(one), _area(other)))
    return shared >= NEAR * small and small >= LEAST * large


def overlap(one: Box, other: Box) -> float:
    """The overlap of two boxes (IoU)."""
    shared = _shared(one, other)
    return shared / max(_area(one) + _area(other) - shared, 1e-9)


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _shared(one: Box, other: Box) -> float:
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    return max(wide, 0.0) * max(high, 0.0)
