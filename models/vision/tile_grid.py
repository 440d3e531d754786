"""Where the tiles of a picture lie, in which a detector looks for small and far objects."""

from __future__ import annotations

OVERLAP = 0.2  # of a tile's side; an object that is narrower is whole in one of two tiles

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
