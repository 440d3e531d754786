"""The shape of frames: width by height, in observations and where lengths are compared."""

from __future__ import annotations

import msgspec

from pipeline.types import Detections

WIDE = 16 / 9  # of a frame whose observation says nothing of it
ALIKE = 0.01  # by which a shape may differ from 16:9 and count as that


def aspect_of(width: int, height: int) -> float | msgspec.UnsetType:
    """Returns `Detections.aspect` of a frame of so many pixels."""
    if width <= 0 or height <= 0:  # a record that claims this has no picture
        return msgspec.UNSET
    ratio = width / height
    if abs(ratio / WIDE - 1) <= ALIKE:
        return msgspec.UNSET
    return min(max(round(ratio, 3), 0.001), 1000.0)


def shape_of(seen: Detections) -> float:
    """Returns width by height of a frame; observations of older versions count as 16:9."""
    return WIDE if isinstance(seen.aspect, msgspec.UnsetType) else seen.aspect
