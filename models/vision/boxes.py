"""Post-processing that all detectors share: non-maximum suppression, and arrays to records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.types import Box


def boxes(fractions: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> tuple[Box, ...]:
    """Converts (n, 4) corners in fractions to records: rounded to 1e-3, best first; drops
    empty boxes."""
    table = zip(
        np.clip(fractions, 0, 1).astype(float).round(3).tolist(),
        np.minimum(scores, 1).astype(float).round(3).tolist(),
        labels,
        strict=True,
    )
    made = [
        Box(label=label, score=score, x1=x1, y1=y1, x2=x2, y2=y2)
        for (x1, y1, x2, y2), score, label in table
        if x2 > x1 and y2 > y1
    ]
    made.sort(key=lambda box: (-box.score, box.label, box.x1, box.y1, box.x2, box.y2))
    return tuple(made)


def suppress(corners: np.ndarray, classes: np.ndarray, iou: float) -> np.ndarray:
    """Returns the rows kept by greedy non-maximum suppression per class; rows are sorted best
    first."""
    if not len(corners):
        return np.empty(0, np.intp)
    # One pass for all classes: boxes of different classes are shifted so far that none overlap.
    apart = float(corners.max() - corners.min()) + 1.0
    x1, y1, x2, y2 = (corners + (classes * apart)[:, None]).T
    wide = np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1)
    high = np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1)
    common = np.maximum(wide, 0) * np.maximum(high, 0)
    area = (x2 - x1) * (y2 - y1)
    covers = np.triu(common > iou * (area[:, None] + area - common), 1)
    alive = np.ones(len(corners), bool)
    for index in np.flatnonzero(covers.any(1)):
        if alive[index]:
            alive &= ~covers[index]
    return np.flatnonzero(alive)
