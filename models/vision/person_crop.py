"""Cuts a person out of a picture for a pose model, and maps the keypoints back to the picture.

The cut is a square around the person's box, with a margin. What lies outside the picture is black,
as in the training of these networks. They have seen few people who lie: such a person is shown to
them upright, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.judge.pose import pack
from pipeline.types import Box

UPRIGHT, ANY_WAY = (0,), (0, 1, 3)  # quarters of a full turn to the left


class Person(NamedTuple):
    """A person in a picture (BGR uint8, h x w x 3)."""

    picture: np.ndarray
    box: Box


class Guess(NamedTuple):
    """What a network finds in a cut: 17 keypoints (x, y, score) in fractions of it, and how sure
    it is that a person is there as it was trained for."""

    points: np.ndarray
    sureness: float


class Square(NamedTuple):
    """A square of a picture, in px; it may reach beyond the picture."""

    left: int
    top: int
    side: int

    def to_bytes(self, points: np.ndarray, picture: np.ndarray) -> bytes:
        """Packs 17 keypoints (x, y, score), x and y in fractions of the square."""
        height, width = picture.shape[:2]
        x = (self.left + points[:, 0] * self.side) / width
        y = (self.top + points[:, 1] * self.side) / height
        return pack(zip(x.tolist(), y.tolist(), points[:, 2].tolist(), strict=True))


def estimated(
    person: Person, margin: float, size: int, run: Callable[[np.ndarray], Guess]
) -> bytes:
    """Returns the bytes of `Box.keypoints`; empty where box and picture have no area in common.

    `run` takes the cut (RGB uint8, `size` x `size` x 3). A person who is wider than high is tried
    as it is, and turned by a quarter to the left and to the right; the surest guess is kept.
    """
    square = square_around(person, margin)
    if square is None:
        return b""
    picture = cut(person.picture, square, size)
    turns = ANY_WAY if _is_wide(person) else UPRIGHT
    found = {quarters: run(np.ascontiguousarray(np.rot90(picture, quarters))) for quarters in turns}
    best = max(turns, key=lambda quarters: found[quarters].sureness)
    return square.to_bytes(_turned_back(found[best].points, best), person.picture)


def _is_wide(person: Person) -> bool:
    height, width = person.picture.shape[:2]
    box = person.box
    return (box.x2 - box.x1) * width > (box.y2 - box.y1) * height


def _turned_back(points: np.ndarray, quarters: int) -> np.ndarray:
    """The keypoints of a square that was turned to the left, in the square as it was."""
    x, y, scores = points.T
    for _ in range(quarters):
        x, y = 1 - y, x
    return np.column_stack([x, y, scores])


def square_around(person: Person, margin: float) -> Square | None:
    """The square around a person; `margin` is a part of the longer side of the box, at each end.

    None where the box and the picture have no area in common.
    """
    height, width = person.picture.shape[:2]
    box = person.box
    if min(box.x2, 1.0) <= max(box.x1, 0.0) or min(box.y2, 1.0) <= max(box.y1, 0.0):
        return None
    longer = max((box.x2 - box.x1) * width, (box.y2 - box.y1) * height)
    side = max(1, round(longer * (1 + 2 * margin)))
    left = round((box.x1 + box.x2) / 2 * width - side / 2)
    top = round((box.y1 + box.y2) / 2 * height - side / 2)
    return Square(left, top, side)


def cut(picture: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Returns the square as RGB uint8, `size` x `size` x 3."""
    height, width = picture.shape[:2]
    left, top, side = square
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    whole = picture[y1:y2, x1:x2]
    if whole.shape[:2] != (side, side):
        whole = np.zeros((side, side, 3), np.uint8)
        whole[max(y1 - top, 0) : max(y2 - top, 0), max(x1 - left, 0) : max(x2 - left, 0)] = picture[
            y1:y2, x1:x2
        ]
    way = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.cvtColor(cv2.resize(whole, (size, size), interpolation=way), cv2.COLOR_BGR2RGB)
