"""Looking in tiles: where they lie, and how the boxes of several looks become one box each."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.vision.tile_grid import OVERLAP, grid, looks
from models.vision.tiles import MOST_BOXES, look
from pipeline.types import Box

WIDE, HIGH = 640, 360
LEFT, RIGHT = grid(WIDE, HIGH, 2)


class Painted:
    """A detector that finds, in each view, the things that are painted there.

    A thing is a rectangle of one colour; a person whose colour is n has the score n / 100. What is
    smaller than `least` parts of the view's height is not seen.
    """

    def __init__(self, least: float = 0.0) -> None:
        self.least, self.batches = least, list[int]()

    def __call__(self, views: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        self.batches.append(len(views))
        return [self._of(view) for view in views]

    def _of(self, view: np.ndarray) -> tuple[Box, ...]:
        height, width = view.shape[:2]
        found = []
        for colour in np.unique(view[..., 0]):
            ys, xs = np.nonzero(view[..., 0] == colour)
            if colour and (np.ptp(ys) + 1) / height >= self.least:
                corners = xs.min() / width, ys.min() / height, (xs.max() + 1) / width
                x1, y1, x2, y2 = (round(float(c), 3) for c in (*corners, (ys.max() + 1) / height))
                found.append(Box(label="person", score=colour / 100, x1=x1, y1=y1, x2=x2, y2=y2))
        return tuple(sorted(found, key=lambda box: -box.score))


def painted(*things: tuple[int, int, int, int, int]) -> np.ndarray:
    """A picture with things: colour, left, top, right, bottom."""
    picture = np.zeros((HIGH, WIDE, 3), np.uint8)
    for colour, left, top, right, bottom in things:
        picture[top:bottom, left:right] = colour
    return picture


@pytest.mark.parametrize(
    ("size", "tiles", "shape"),
    [
        ((640, 360), 2, (2, 1)),
        ((640, 480), 2, (2, 2)),
        ((360, 640), 2, (1, 2)),
        ((640, 640), 2, (2, 2)),
        ((640, 360), 3, (3, 2)),
        ((640, 360), 4, (4, 2)),
        ((1280, 320), 2, (2, 1)),
    ],
)
def test_tiles_are_nearly_square_and_cover_the_picture(
    size: tuple[int, int], tiles: int, shape: tuple[int, int]
) -> None:
    made = grid(*size, tiles)
    assert (len({left for left, *_ in made}), len({top for _, top, *_ in made})) == shape
    assert looks(*size, tiles) == 1 + shape[0] * shape[1]
    covered = np.zeros(size[::-1], bool)
    for left, top, right, bottom in made:
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_neighbours_overlap_by_a_fifth() -> None:
    assert (LEFT[0], LEFT[3], RIGHT[2]) == (0, HIGH, WIDE)
    shared, side = LEFT[2] - RIGHT[0], LEFT[2] - LEFT[0]
    assert shared / side == pytest.approx(OVERLAP, abs=0.01)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 4))
def test_any_size_is_covered(width: int, height: int, tiles: int) -> None:
    for left, top, right, bottom in grid(width, height, tiles):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@pytest.mark.parametrize("size", [(0, 48), (48, 0), (-1, 5)])
def test_a_size_that_no_picture_has_gives_no_tiles(size: tuple[int, int]) -> None:
    assert looks(*size, 3) == 1


def test_without_tiles_the_detector_is_called_once_as_before() -> None:
    detector = Painted()
    pictures = [painted((50, 10, 10, 40, 90)), painted()]
    assert look(detector, pictures, [1, 1]) == detector(pictures)
    assert look(detector, [], []) == []
    assert detector.batches == [2, 2]


def test_a_far_person_is_found_in_a_tile_alone() -> None:
    far = (50, 100, 100, 110, 120)  # 20 px: 0.056 of the picture; the tiles are as high
    high = painted(far)
    seen_small = Painted(least=0.05)
    assert look(seen_small, [high], [2]) == look(seen_small, [high], [1])
    blind = Painted(least=0.06)
    assert look(blind, [high], [1]) == [()]
    (found,) = look(blind, [high], [3])  # two rows: a tile is 0.56 as high
    assert [(box.score, box.x1, box.y2) for box in found] == [(0.5, 0.156, 0.333)]


def test_a_person_whom_several_looks_show_is_one_box() -> None:
    in_both_tiles = painted((70, 300, 100, 330, 200))
    (found,) = look(Painted(), [in_both_tiles], [2])
    assert [(box.x1, box.y1, box.x2, box.y2) for box in found] == [(0.469, 0.278, 0.516, 0.556)]


def test_a_piece_at_a_seam_is_no_second_person() -> None:
    across = painted((70, 200, 50, 500, 350))  # wider than the overlap: cut in both tiles
    (found,) = look(Painted(), [across], [2])
    assert [(box.x1, box.x2) for box in found] == [(0.312, 0.781)]


def test_who_stands_before_another_is_not_joined_with_them() -> None:
    """The intersection over the smaller box is 1 here, and both are whole."""
    behind_and_before = painted((70, 20, 20, 120, 340), (50, 50, 100, 90, 330))
    (found,) = look(Painted(), [behind_and_before], [2])
    assert sorted(box.score for box in found) == [0.5, 0.7]


def test_the_views_of_many_pictures_come_in_batches() -> None:
    detector = Painted()
    pictures = [painted((50, 10, 10, 40, 90))] * 16
    found = look(detector, pictures, [2, 1] * 8)
    assert detector.batches == [16, 16]
    assert len(found) == 16
    assert len({tuple(boxes) for boxes in found}) == 1


def test_a_batch_gives_what_single_pictures_give() -> None:
    dice = Random(3)
    pictures = []
    for _ in range(6):
        things = []
        for colour in range(10, 60, 5):
            x, y = dice.randrange(600), dice.randrange(300)
            things.append((colour, x, y, x + dice.randrange(4, 40), y + dice.randrange(8, 60)))
        pictures.append(painted(*things))
    tiles = [1, 2, 3, 4, 2, 3]
    detector = Painted(least=0.03)
    alone = [look(detector, [p], [n])[0] for p, n in zip(pictures, tiles, strict=True)]
    assert look(detector, pictures, tiles) == alone
    for boxes in alone:
        assert [box.score for box in boxes] == sorted((b.score for b in boxes), reverse=True)


def test_a_picture_has_no_more_boxes_than_without_tiles() -> None:
    class Many:
        def __call__(self, views: Sequence[Any]) -> list[tuple[Box, ...]]:
            cells = [k / 12 for k in range(10)]
            made = tuple(
                Box(label="person", score=0.5, x1=x + 0.02, y1=y + 0.02, x2=x + 0.05, y2=y + 0.05)
                for x in cells
                for y in cells
            )
            return [made for _ in views]

    (found,) = look(Many(), [painted()], [4])
    assert len(found) == MOST_BOXES
