"""Chooses the persons of a frame whose poses are estimated: a pure function of the frame.

A person who may lie on the floor comes first, then one who moves, then one who is near.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.config.schema import Detect
from pipeline.tracking.stationary import alike
from pipeline.types import Box, FrameChunk
from workers.media.motion import COLUMNS, ROWS

PERSON = "person"
SAME_PERSON = 0.5  # IoU from which a faint box is taken for a second one of a surer person


def posed_persons(frame: FrameChunk, boxes: Sequence[Box], detect: Detect) -> tuple[int, ...]:
    """Returns the indices of at most `detect.poses` boxes of persons, in the order of their rank.

    The rank: wider than high (in px), then the mean of the recorded motion in the box, then the
    area, then the corners. A box below `detect.min_score` that covers the place of a surer person
    is left out.
    """
    if not detect.poses:
        return ()
    persons = [n for n, box in enumerate(boxes) if box.label == PERSON]
    single = [
        n
        for n in persons
        if boxes[n].score >= detect.min_score
        or not any(
            alike(boxes[n], boxes[other], SAME_PERSON)
            for other in persons
            if boxes[other].score > boxes[n].score
        )
    ]

    def rank(n: int) -> tuple[bool, float, float, float, float, float, float]:
        box = boxes[n]
        wide, high = box.x2 - box.x1, box.y2 - box.y1
        upright = wide * frame.width <= high * frame.height
        motion = motion_in(frame.motion, box)
        return upright, -motion, -wide * high, box.x1, box.y1, box.x2, box.y2

    return tuple(sorted(single, key=rank)[: detect.poses])


def motion_in(grid: bytes, box: Box) -> float:
    """The mean of the cells of `FrameChunk.motion` that a box touches; 0 where it is unknown."""
    if len(grid) != COLUMNS * ROWS:
        return 0.0
    columns = _cells(box.x1, box.x2, COLUMNS)
    cells = [grid[row * COLUMNS + c] for row in _cells(box.y1, box.y2, ROWS) for c in columns]
    return sum(cells) / len(cells)


def _cells(low: float, high: float, count: int) -> range:
    """The rows or columns that a span from `low` to `high` touches; at least one."""
    first = min(max(math.floor(low * count), 0), count - 1)
    return range(first, max(first + 1, min(math.ceil(high * count), count)))
