"""Looks at a picture as a whole and in overlapping tiles, in which far objects are larger.

The method is slicing aided inference (SAHI: Akyon et al. 2022, arXiv:2202.06934). SAHI joins the
boxes of all looks by the intersection over the smaller box, which also joins a person with another
one who stands before it. Here a box that an inner edge of its tile cuts is left out: the object is
whole in the whole picture, and in the neighbour tile if it is narrower than the overlap. The other
boxes are compared as in non-maximum suppression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.vision.tile_grid import Rectangle, grid
from pipeline.ports import Model
from pipeline.types import Box

EDGE = 0.01  # of a tile's side; a box that comes so near to an inner edge is cut
SAME = 0.5  # IoU from which boxes of two looks show one object
MOST_BOXES = 100  # of one picture
AT_ONCE = 16  # views that the detector gets in one call


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
        found[n] += _placed(boxes, number, place, width, height)
    return [
        _merged(each) if tiles[n] > 1 else tuple(one.box for one in each)
        for n, each in enumerate(found)
    ]


def _cut(picture: Any, place: Rectangle) -> Any:
    left, top, right, bottom = place
    return picture[top:bottom, left:right]


class _Seen(NamedTuple):
    """A box in fractions of the whole picture; `look` tells the looks apart."""

    box: Box
    look: int


def _placed(
    boxes: Sequence[Box], number: int, place: Rectangle | None, width: int, height: int
) -> Iterator[_Seen]:
    """The boxes of one look that no inner edge cuts."""
    if place is None:
        yield from (_Seen(box, number) for box in boxes)
        return
    left, top, right, bottom = place
    for box in boxes:
        cut = (
            (box.x1 <= EDGE and left > 0)
            or (box.y1 <= EDGE and top > 0)
            or (box.x2 >= 1 - EDGE and right < width)
            or (box.y2 >= 1 - EDGE and bottom < height)
        )
        x1, x2 = (round((left + x * (right - left)) / width, 3) for x in (box.x1, box.x2))
        y1, y2 = (round((top + y * (bottom - top)) / height, 3) for y in (box.y1, box.y2))
        if not cut and x2 > x1 and y2 > y1:
            made = Box(label=box.label, score=box.score, x1=x1, y1=y1, x2=x2, y2=y2)
            yield _Seen(made, number)


def _merged(seen: Sequence[_Seen]) -> tuple[Box, ...]:
    """One box for each object, best first: of boxes of one class in different looks that overlap,
    the surest."""
    if not seen:
        return ()
    ranked = sorted(seen, key=lambda one: (_rank(one.box), one.look))
    corners = np.array([(one.box.x1, one.box.y1, one.box.x2, one.box.y2) for one in ranked])
    labels = np.array([one.box.label for one in ranked])
    numbers = np.array([one.look for one in ranked])
    low = np.maximum(corners[:, None, :2], corners[:, :2])
    high = np.minimum(corners[:, None, 2:], corners[:, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    covers = common >= SAME * (areas[:, None] + areas - common)
    covers &= (labels[:, None] == labels) & (numbers[:, None] != numbers)
    covers = np.triu(covers, 1)
    alive = np.ones(len(ranked), bool)
    for index in np.flatnonzero(covers.any(1)):
        if alive[index]:
            alive &= ~covers[index]
    return tuple(ranked[index].box for index in np.flatnonzero(alive)[:MOST_BOXES])


def _rank(box: Box) -> tuple[float, str, float, float, float, float]:
    return -box.score, box.label, box.x1, box.y1, box.x2, box.y2
