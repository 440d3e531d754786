"""The audit of the gates: some gated frames and seconds are analysed all the same, and judged.

The number of misses over the number of audited ones is the gate's miss rate.
"""

from __future__ import annotations

from collections import deque

from pipeline.config.schema import Detect
from pipeline.tracking.stationary import alike
from pipeline.types import Box, FrameChunk, content_id

REMEMBERED_LOOKS = 5  # the detector may miss an object at rest in some of them
SAME_PLACE = 0.3  # IoU; two boxes of an object at rest overlap by more


def chosen(frame: FrameChunk, share: float) -> bool:
    """Whether a gated frame is audited; it depends on the frame's site, source and start alone."""
    return picked(frame.site, frame.source, frame.start, share)


def picked(site: str, source: str, start: int, share: float) -> bool:
    """Whether what starts at `start` (ns) belongs to the part `share` that is audited."""
    return int(content_id("audit", site, source, start)[:8], 16) < share * 2**32


class LookMemory:
    """What the last looks at one camera showed. It serves the counts alone, never a record."""

    def __init__(self) -> None:
        self._looks: deque[tuple[Box, ...]] = deque(maxlen=REMEMBERED_LOOKS)

    def looked(self, boxes: tuple[Box, ...]) -> None:
        """Adds the boxes of a frame that was looked at, also of an audited one."""
        self._looks.append(boxes)

    def misses(self, boxes: tuple[Box, ...], detect: Detect) -> bool | None:
        """Whether an audited frame shows an object that no remembered look shows.

        None if there was no look yet. Objects below `min_score` or `min_height` do not count.
        """
        if not self._looks:
            return None
        known = [box for look in self._looks for box in look]
        return any(
            box.score >= detect.min_score
            and box.y2 - box.y1 >= detect.min_height
            and not any(alike(box, other, SAME_PLACE) for other in known)
            for box in boxes
        )
