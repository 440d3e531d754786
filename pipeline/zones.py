"""Geometry of the picture: polygons, lines and objects that cross them.

Points are fractions of the frame, x to the right, y down. No numpy: a camera has tens of boxes per
frame, and for so few plain floats are faster than an array.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

import msgspec

from pipeline.types import SECOND, Box

Point = tuple[float, float]

_TOUCH = 1e-9  # of the frame; a point this near a border is on it


def parse_points(text: str) -> tuple[Point, ...]:
    """Returns the points of `"x,y, x,y, ..."`; raises ValueError that names the wrong number
    and why."""
    words = text.replace(",", " ").split()
    numbers = []
    for place, word in enumerate(words, start=1):
        try:
            number = float(word)
        except ValueError:
            msg = f"number {place} of the coordinates is {word!r}, not a number"
            raise ValueError(msg) from None
        if not 0 <= number <= 1:  # also true for NaN
            msg = f"number {place} of the coordinates is {word}: a fraction of the frame, 0 to 1"
            if number > 1:
                msg += "; divide pixels by the width (x) or the height (y) of the picture"
            raise ValueError(msg)
        numbers.append(number)
    if len(numbers) % 2:
        msg = f"coordinates are pairs of x and y, but there are {len(numbers)} numbers"
        raise ValueError(msg)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def feet(box: Box) -> Point:
    """Returns where an object stands: the middle of its box's lower edge."""
    return ((box.x1 + box.x2) / 2, box.y2)


class Polygon(msgspec.Struct, frozen=True):
    """An area of the picture, convex or not; a self-crossing one follows the even-odd rule."""

    points: tuple[Point, ...]

    @classmethod
    def parse(cls, text: str) -> Polygon:
        """Parses `"x,y, x,y, x,y"`; the first point may be repeated at the end. Raises
        ValueError."""
        points = parse_points(text)
        if len(points) > 1 and points[0] == points[-1]:
            points = points[:-1]
        if len(set(points)) < 3:
            msg = f"an area needs at least three different points, not {len(set(points))}"
            raise ValueError(msg)
        (x0, y0), *others = points
        far = max(others, key=lambda p: math.hypot(p[0] - x0, p[1] - y0))
        if all(_distance(p, points[0], far) <= _TOUCH for p in points):
            msg = "the points of an area lie on one line"
            raise ValueError(msg)
        return cls(points)

    def contains(self, x: float, y: float) -> bool:
        """Returns whether a point is inside or on the border (even-odd rule, ray to the right)."""
        inside = False
        previous = self.points[-1]
        for point in self.points:
            (x1, y1), (x2, y2) = previous, point
            if _distance((x, y), previous, point) <= _TOUCH:
                return True
            if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                inside = not inside
            previous = point
        return inside

    def distance(self, x: float, y: float) -> float:
        """Returns how far a point is outside, as a part of the frame; 0 inside."""
        if self.contains(x, y):
            return 0.0
        borders = zip(self.points, (*self.points[1:], self.points[0]), strict=True)
        return min(_distance((x, y), one, two) for one, two in borders)


class LineSegment(msgspec.Struct, frozen=True):
    """A line from `first` to `second` that objects cross."""

    first: Point
    second: Point

    @classmethod
    def parse(cls, text: str) -> LineSegment:
        """Parses `"x,y, x,y"`; raises ValueError."""
        points = parse_points(text)
        if len(points) != 2:
            msg = f"a line has two points, not {len(points)}"
            raise ValueError(msg)
        if points[0] == points[1]:
            msg = "the two points of a line are the same"
            raise ValueError(msg)
        return cls(*points)

    def side(self, point: Point) -> float:
        """Returns the signed distance from the infinite line, positive on the right.

        Right is as seen when walking from `first` to `second`. In a picture (y down), for a walk
        from left to right, the lower part is on the right.
        """
        (x1, y1), (x2, y2) = self.first, self.second
        across = (x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1)
        return across / math.hypot(x2 - x1, y2 - y1)

    def passes(self, before: Point, after: Point) -> bool:
        """Returns whether the path between points on opposite sides crosses the segment, ends
        included."""
        one, two = self.side(before), self.side(after)
        share = one / (one - two)
        x = before[0] + share * (after[0] - before[0])
        y = before[1] + share * (after[1] - before[1])
        return _distance((x, y), self.first, self.second) <= _TOUCH

    def distance(self, point: Point) -> float:
        """Returns how far a point is from the segment, as a part of the frame."""
        return _distance(point, self.first, self.second)


class _Walk:
    """One track near a line."""

    __slots__ = ("at", "hand", "seen", "settled", "since", "through", "why")

    def __init__(self, at: Point) -> None:
        self.at = at  # its last point
        self.hand = 0  # -1 left, 1 right of the line; the last non-zero side
        self.settled = 0  # the side where it was last farther away than the hysteresis
        self.since = 0  # ns; the time of `settled`
        self.through = False  # its last change of sides crossed the segment
        self.seen = 0  # ns; the time of its last point
        self.why = ""  # it did not count at its last point


class LineCounter:
    """Detects objects that cross a line; `in` is to the right of the line (`LineSegment.side`).

    A track counts when it was farther than `hysteresis` on one side and then on the other, and the
    path on which it last changed sides crosses the segment, not the line beyond its ends. A side is
    forgotten `keep` ns after the track was last clear of the line there, and an unseen track `keep`
    ns after its last point. So no state reaches further back, and memory is bounded. Raises
    ValueError.
    """

    def __init__(
        self, line: LineSegment, hysteresis: float = 0.02, keep: int = 120 * SECOND
    ) -> None:
        if not 0 <= hysteresis < 1 or keep <= 0:
            msg = (
                f"hysteresis {hysteresis} is not a fraction of the frame, or keep {keep} ns not > 0"
            )
            raise ValueError(msg)
        self._line = line
        self._hysteresis = hysteresis
        self._keep = keep
        self._walks: OrderedDict[Hashable, _Walk] = OrderedDict()  # the longest unseen first

    def __len__(self) -> int:
        return len(self._walks)

    def push(self, track: Hashable, point: Point, time: int) -> str | None:
        """Adds a track's point at `time`, ns; returns `"in"` or `"out"` when a crossing is
        complete."""
        self._forget(time)
        side = self._line.side(point)
        hand = (side > 0) - (side < 0)
        walk = self._walks.get(track)
        if walk is None:
            walk = self._walks[track] = _Walk(point)
        self._walks.move_to_end(track)
        if hand and walk.hand and hand != walk.hand:
            walk.through = self._line.passes(walk.at, point)
        walk.at, walk.hand, walk.seen = point, hand or walk.hand, time
        if abs(side) <= self._hysteresis:
            walk.why = "it is within the hysteresis of the line"
            return None
        crossed = walk.through and walk.settled == -hand and time - walk.since < self._keep
        if not crossed:
            walk.why = _uncrossed(walk, hand)
            walk.settled, walk.since = hand, time
            return None
        walk.settled, walk.since = hand, time
        return "in" if hand > 0 else "out"

    def close(self, box: Box) -> bool:
        """Returns whether an object stands at the line: the hysteresis away, or nearer."""
        return self._line.distance(feet(box)) <= self._hysteresis

    def missed(self, track: Hashable) -> tuple[str, float]:
        """Returns why the last point of a track completed no crossing, and its distance from the
        line, as a part of the frame."""
        walk = self._walks[track]
        return walk.why, self._line.distance(walk.at)

    def _forget(self, now: int) -> None:
        while self._walks and next(iter(self._walks.values())).seen <= now - self._keep:
            self._walks.popitem(last=False)


def _uncrossed(walk: _Walk, hand: int) -> str:
    if walk.settled != -hand:
        return "it has not been clear of the other side before"
    return "it passed the line too slowly" if walk.through else "it passed the line beyond its ends"


def _distance(point: Point, one: Point, two: Point) -> float:
    """Returns the distance from a point to a segment."""
    dx, dy = two[0] - one[0], two[1] - one[1]
    length = dx * dx + dy * dy
    along = ((point[0] - one[0]) * dx + (point[1] - one[1]) * dy) / length if length else 0.0
    along = min(max(along, 0.0), 1.0)
    return math.hypot(point[0] - one[0] - along * dx, point[1] - one[1] - along * dy)
