"""Looks at a picture as a whole and in overlapping tiles, in which far objects are larger.

The method is slicing aided inference (SAHI: Akyon et al. 2022, arXiv:2202.06934). SAHI joins the
boxes of all looks by the intersection over the smaller box, which also joins a person with another
one who stands before it. So here a box that the edge of its tile cuts is told from a whole one:

- Of two whole boxes at one place the surer one is kept, as in non-maximum suppression.
- A cut box is left out where a whole one covers it. Two cut ones that overlap become the box around
  both, as in SAHI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ports import Model
from pipeline.types import Box

OVERLAP = 0.2  # of a tile's side; an object that is narrower is whole in one of two tiles
EDGE = 0.01  # of a tile's side; a box that comes so near to an inner edge is cut
SAME = 0.5  # overlap from which two boxes show one object
MOST_BOXES = 100  # of one picture
AT_ONCE = 16  # views that the detector gets in one call

Array = NDArray[np.float64]
Rectangle = tuple[int, int, int, int]  # px; left, top, right, bottom


def grid(width: int, height: int, tiles: int) -> list[Rectangle]:
    """Returns the tiles of a picture of this size: `tiles` along its longer side.

    Along the shorter side there are as many as make them nearest to a square. There are none for
    `tiles` 1.
    """
    if tiles < 2 or min(width, height) < 1:
        return []
    longest = max(width, height)
    columns, rows = (max(1, int(tiles * side / longest + 0.5)) for side in (width, height))
    return [
        (left, top, right, bottom)
        for top, bottom in _spans(height, rows)
        for left, right in _spans(width, columns)
    ]


def looks(width: int, height: int, tiles: int) -> int:
    """Returns how often the detector runs for a picture of this size."""
    return 1 + len(grid(width, height, tiles))


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """So many overlapping spans of equal length that cover `length` pixels."""
    side = length / (count - (count - 1) * OVERLAP)
    starts = [round(k * side * (1 - OVERLAP)) for k in range(count)]
    ends = [min(length, start + max(1, round(side))) for start in starts[:-1]]
    return list(zip(starts, (*ends, length), strict=True))


def look(detector: Model, pictures: Sequence[Any], tiles: Sequence[int]) -> list[tuple[Box, ...]]:
    """Returns the boxes of each picture (h x w x 3), looked at in so many tiles."""
    if not pictures:
        return []
    places = [
        (n, place)
        for n, picture in enumerate(pictures)
        for place in (None, *grid(picture.shape[1], picture.shape[0], tiles[n]))
    ]
    views = [pictures[n] if place is None else _cut(pictures[n], place) for n, place in places]
    if len(views) == len(pictures):
        return list(detector(views))
    seen: list[tuple[Box, ...]] = []
    for first in range(0, len(views), AT_ONCE):
        seen += detector(views[first : first + AT_ONCE])
    found: list[list[_Seen]] = [[] for _ in pictures]
    for number, ((n, place), boxes) in enumerate(zip(places, seen, strict=True)):
        height, width = pictures[n].shape[:2]
        found[n] += (_placed(box, number, place, width, height) for box in boxes)
    return [
        merged(each) if tiles[n] > 1 else tuple(one.box for one in each)
        for n, each in enumerate(found)
    ]


def _cut(picture: Any, place: Rectangle) -> Any:
    left, top, right, bottom = place
    return picture[top:bottom, left:right]


class _Seen(NamedTuple):
    """A box in fractions of the whole picture; `look` tells the looks apart."""

    box: Box
    look: int
    cut: bool


def _placed(box: Box, number: int, place: Rectangle | None, width: int, height: int) -> _Seen:
    if place is None:
        return _Seen(box, number, cut=False)
    left, top, right, bottom = place
    cut = (
        (box.x1 <= EDGE and left > 0)
        or (box.y1 <= EDGE and top > 0)
        or (box.x2 >= 1 - EDGE and right < width)
        or (box.y2 >= 1 - EDGE and bottom < height)
    )
    xs = [round((left + x * (right - left)) / width, 3) for x in (box.x1, box.x2)]
    ys = [round((top + y * (bottom - top)) / height, 3) for y in (box.y1, box.y2)]
    here = Box(label=box.label, score=box.score, x1=xs[0], y1=ys[0], x2=xs[1], y2=ys[1])
    return _Seen(here, number, cut=cut)


def merged(seen: Sequence[_Seen]) -> tuple[Box, ...]:
    """Returns one box for each object, best first."""
    ranked = sorted(seen, key=lambda one: (_rank(one.box), one.look))
    whole = [one for one in ranked if not one.cut]
    shared, _ = _overlaps(whole, whole)
    covers = np.triu(shared >= SAME, 1)
    alive = np.ones(len(whole), bool)
    for index in np.flatnonzero(covers.any(1)):
        if alive[index]:
            alive &= ~covers[index]
    kept = [one for one, lives in zip(whole, alive, strict=True) if lives]
    pieces = [one for one in ranked if one.cut]
    _, covered = _overlaps(pieces, kept)
    left = covered.max(1, initial=0.0) < SAME
    kept += _joined([one for one, stays in zip(pieces, left, strict=True) if stays])
    boxes = (one.box for one in kept if one.box.x2 > one.box.x1 and one.box.y2 > one.box.y1)
    return tuple(sorted(boxes, key=_rank)[:MOST_BOXES])


def _joined(pieces: Sequence[_Seen]) -> list[_Seen]:
    """Pieces of one object become the box around them, with the highest score."""
    kept: list[_Seen] = []
    for one in pieces:
        shared = _smaller(one, kept)
        if not kept or shared.max() < SAME:
            kept.append(one)
            continue
        other = kept[at := int(shared.argmax())].box
        box = Box(
            label=one.box.label,
            score=max(one.box.score, other.score),
            x1=min(one.box.x1, other.x1),
            y1=min(one.box.y1, other.y1),
            x2=max(one.box.x2, other.x2),
            y2=max(one.box.y2, other.y2),
        )
        kept[at] = kept[at]._replace(box=box)
    return kept


def _rank(box: Box) -> tuple[float, str, float, float, float, float]:
    return -box.score, box.label, box.x1, box.y1, box.x2, box.y2


def _common(ones: Sequence[_Seen], others: Sequence[_Seen]) -> tuple[Array, Array, Array]:
    """The common areas (n, m) of boxes of one label in different looks, and the areas of each."""
    corners, other_corners = _corners(ones), _corners(others)
    low = np.maximum(corners[:, None, :2], other_corners[:, :2])
    high = np.minimum(corners[:, None, 2:], other_corners[:, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    labels, other_labels = (np.array([one.box.label for one in each]) for each in (ones, others))
    numbers, other_numbers = (np.array([one.look for one in each]) for each in (ones, others))
    common *= labels[:, None] == other_labels
    common *= numbers[:, None] != other_numbers
    areas, other_areas = (
        np.maximum((each[:, 2:] - each[:, :2]).prod(1), 1e-12) for each in (corners, other_corners)
    )
    return common, areas, other_areas


def _corners(seen: Sequence[_Seen]) -> Array:
    rows = [(one.box.x1, one.box.y1, one.box.x2, one.box.y2) for one in seen]
    return np.array(rows, float).reshape(-1, 4)


def _overlaps(ones: Sequence[_Seen], others: Sequence[_Seen]) -> tuple[Array, Array]:
    """Intersection over union (n, m), and the part of each of `ones` that the other covers."""
    if not ones or not others:
        nothing = np.zeros((len(ones), len(others)))
        return nothing, nothing
    common, areas, other_areas = _common(ones, others)
    return common / (areas[:, None] + other_areas - common), common / areas[:, None]


def _smaller(one: _Seen, others: Sequence[_Seen]) -> Array:
    """Intersection over the smaller box (m)."""
    if not others:
        return np.zeros(0)
    common, area, areas = _common([one], others)
    smaller: Array = common[0] / np.minimum(area[0], areas)
    return smaller
