"""Which persons of a frame have their poses estimated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Detect
from pipeline.types import Box, FrameChunk
from tests.make import box, frame
from workers.media.motion import COLUMNS, ROWS
from workers.stages.posed_persons import motion_in, posed_persons

CELLS = COLUMNS * ROWS
NEAR, FAR = box(x=0.2, width=0.2, height=0.8), box(x=0.8, width=0.1, height=0.3)
LYING = box(x=0.5, y=0.9, width=0.2, height=0.1)


def moving(x: float) -> FrameChunk:
    """A frame of 16:9 in whose column of cells at `x` everything moves."""
    grid = bytearray(CELLS)
    grid[int(x * COLUMNS) :: COLUMNS] = b"\xff" * ROWS
    return still(bytes(grid))


def still(motion: bytes = b"") -> FrameChunk:
    return msgspec.structs.replace(frame(1.0), width=640, height=360, motion=motion)


def chosen(
    of: FrameChunk, boxes: Sequence[Box], most: int | None = 4, sure: float = 0.4
) -> list[Box]:
    picked = posed_persons(of, boxes, Detect(poses=most, min_score=sure))
    return [boxes[n] for n in picked]


def test_the_nearest_is_first_where_nothing_moves() -> None:
    assert chosen(still(), [FAR, NEAR]) == [NEAR, FAR]


def test_who_moves_is_before_who_is_near() -> None:
    assert chosen(moving(0.8), [NEAR, FAR]) == [FAR, NEAR]


def test_who_is_wider_than_high_is_before_who_moves() -> None:
    assert chosen(moving(0.8), [NEAR, FAR, LYING]) == [LYING, FAR, NEAR]


def test_wider_than_high_is_meant_in_pixels() -> None:
    upright = box(x=0.5, width=0.2, height=0.3)  # 128 x 108 px in a frame of 640 x 360
    assert chosen(still(), [NEAR, upright], most=1) == [upright]
    square = msgspec.structs.replace(still(), width=360)
    assert chosen(square, [NEAR, upright], most=1) == [NEAR]


def test_only_persons_are_chosen() -> None:
    assert chosen(still(), [box("dog"), NEAR, box("car")]) == [NEAR]


@pytest.mark.parametrize(("most", "count"), [(None, 0), (0, 0), (1, 1), (2, 2), (16, 3)])
def test_no_more_are_chosen_than_the_camera_allows(most: int | None, count: int) -> None:
    assert len(chosen(still(), [NEAR, FAR, LYING], most)) == count


def test_a_faint_box_on_a_surer_person_is_left_out() -> None:
    twin = msgspec.structs.replace(NEAR, score=0.2, x2=NEAR.x2 + 0.02)
    beside = msgspec.structs.replace(FAR, score=0.2)
    assert chosen(still(), [NEAR, twin, beside]) == [NEAR, beside]
    assert chosen(still(), [NEAR, twin, beside], sure=0.2) == [twin, NEAR, beside]


@given(st.permutations([NEAR, FAR, LYING, box(x=0.4), box(x=0.6), box(x=0.41)]))
def test_the_order_of_the_boxes_does_not_matter(boxes: list[Box]) -> None:
    expected = chosen(still(), [NEAR, FAR, LYING, box(x=0.4), box(x=0.6), box(x=0.41)])
    assert chosen(still(), boxes) == expected


@given(*itertools.repeat(st.floats(0, 1), 4), st.binary(min_size=CELLS, max_size=CELLS))
def test_motion_is_that_of_the_touched_cells(
    x1: float, y1: float, x2: float, y2: float, grid: bytes
) -> None:
    (left, right), (top, bottom) = sorted((x1, x2)), sorted((y1, y2))
    place = msgspec.structs.replace(NEAR, x1=left, y1=top, x2=right, y2=bottom)
    assert min(grid) <= motion_in(grid, place) <= max(grid)
    assert motion_in(bytes([7]) * CELLS, place) == 7
    assert motion_in(b"", place) == 0


def test_a_box_in_one_cell_has_the_motion_of_that_cell() -> None:
    grid = bytes(range(CELLS))
    for number in range(CELLS):
        row, column = divmod(number, COLUMNS)
        x, y = (column + 0.5) / COLUMNS, (row + 0.5) / ROWS
        assert motion_in(grid, box(x=x, y=y, width=0.01, height=0.01)) == number
