"""How an object looks: the layout of `Box.appearance`, how two of them are compared, and what a
track remembers.

The bytes are four histograms: the brightness of the upper half of the box, its colour, and both of
the lower half. Brightness has 16 bins. Colour has 8 directions and the grey. The bins of a
histogram are parts of 255, rounded down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.types import SECOND, Box

LUMAS, HUES = 16, 8
SIZE = 2 * (LUMAS + HUES + 1)  # bytes
# The parts of the upper half count twice: legs look much alike, and they are hidden more often.
COUNT = np.repeat(np.array([2, 2, 1, 1]) / (6 * 510), [LUMAS, HUES + 1, LUMAS, HUES + 1])
# Unlikeness, 0 to 1. Nine in ten looks of one person are nearer than `SAME`, and nineteen in twenty
# nearer than `OTHER`.
SAME, OTHER = 0.25, 0.35
EDGE = 0.02  # of the frame; a box this near to its left or right edge touches it
MIXED = 0.3  # of a box that another one covers; its look is then of both
# ns; of the looks in one such span of event time, the first is kept, and the newest look of all.
# So what is kept does not depend on when the first look was.
STEP = 3 * SECOND // 10
LASTS = SECOND  # ns; after which an object has another look
KEPT = 16  # looks that a track remembers, the newest ones


class Looks:
    """How one object looked in its last frames, oldest first."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, np.ndarray]] = deque(maxlen=KEPT)
        self._rows: np.ndarray | None = None

    def __bool__(self) -> bool:
        return bool(self._seen)

    @property
    def time(self) -> int:
        """The time of the newest look, ns."""
        return self._seen[-1][0]

    @property
    def rows(self) -> np.ndarray:
        """The looks, one a row."""
        if self._rows is None:
            self._rows = np.array([row for _, row in self._seen])
        return self._rows

    def fits(self, time: int, row: np.ndarray) -> bool:
        """Whether the look of a frame is no sudden other one.

        A box may show somebody who stands in front. If the other look stays, it fits.
        """
        recent = bool(self._seen) and time - self._seen[-1][0] < LASTS
        return not recent or unlike(self.rows, row[None]) <= SAME

    def add(self, time: int, row: np.ndarray) -> None:
        """Adds the look of a frame."""
        if len(self._seen) > 1 and self._seen[-2][0] // STEP == self._seen[-1][0] // STEP:
            self._seen.pop()
        self._seen.append((time, row))
        self._rows = None

    def forget(self, before: int) -> None:
        """Forgets the looks before a time."""
        while self._seen and self._seen[0][0] < before:
            self._seen.popleft()
            self._rows = None

    def extend(self, other: Looks) -> None:
        """Adds the later looks of another."""
        for time, row in other._seen:
            self.add(time, row)


def unlike(ones: np.ndarray, others: np.ndarray) -> float:
    """How unlike the looks of an object are to the most similar ones of another, 0 to 1.

    It is the mean over `others`.
    """
    return float((np.abs(ones[:, None] - others) @ COUNT).min(0).mean())


def clear_looks(boxes: Sequence[Box], sure: float) -> Mapping[Box, np.ndarray]:
    """The looks of boxes that show one whole object.

    Their score is at least `sure`, no other such box covers much of them, and they are not at the
    left or right edge.
    """
    hiding = [box for box in boxes if box.score >= sure]
    return {
        box: np.frombuffer(box.appearance, np.uint8).astype(np.float64)
        for box in boxes
        if box.appearance
        and not any(other is not box and covered(box, other) > MIXED for other in hiding)
    }


def at_edge(box: Box) -> bool:
    """Whether a box touches the left or the right edge of the picture."""
    return box.x1 <= EDGE or box.x2 >= 1 - EDGE


def covered(box: Box, other: Box) -> float:
    """The part of a box that another box of its class covers."""
    wide = min(other.x2, box.x2) - max(other.x1, box.x1)
    high = min(other.y2, box.y2) - max(other.y1, box.y1)
    if other.label != box.label or wide <= 0 or high <= 0:
        return 0.0
    return wide * high / ((box.x2 - box.x1) * (box.y2 - box.y1))
