"""The posture of a person in one frame, from keypoints or, where they are weak, from the box."""

from __future__ import annotations

import math
from typing import NamedTuple

from pipeline.judge.pose import Joint, Pose, unpack
from pipeline.types import Box

SURE = 0.3  # the mean score of two keypoints from which they are used
SHOULDERS = Joint.LEFT_SHOULDER, Joint.RIGHT_SHOULDER
HIPS = Joint.LEFT_HIP, Joint.RIGHT_HIP
EDGE = 0.98  # a box that reaches so far down or aside may be cut by the edge of the frame
INSIDE = 0.93  # hips above this are in the frame
SHOULDERS_AT, HIPS_AT = 0.18, 0.5  # of the height of an upright person, from the top


class Posture(NamedTuple):
    """Where the parts of a person are; heights in fractions of the frame, 0 at its top.

    `length` is the longer side of the box, `height` its height, both in heights of the frame.
    `trunk` is the angle of the trunk to the floor in degrees, 90 for upright; None if the keypoints
    are weak. `cut`: the edge of the frame may hide a part of the body, so the height of the box
    says nothing.
    """

    shoulders: float
    hips: float
    height: float
    length: float
    trunk: float | None
    cut: bool

    @property
    def flat(self) -> float:
        """The height of the box by its longer side, 1 for an upright person."""
        return self.height / self.length


def posture(box: Box, aspect: float) -> Posture:
    """Returns the posture of a person; `aspect` is the frame's width by its height."""
    height, width = max(box.y2 - box.y1, 1e-3), max(box.x2 - box.x1, 1e-3) * aspect
    length = max(height, width)
    pose = unpack(box.keypoints)
    shoulders = pair(pose, SHOULDERS) if pose else None
    hips = pair(pose, HIPS) if pose else None
    if shoulders is None or hips is None:
        top, middle = box.y1 + SHOULDERS_AT * height, box.y1 + HIPS_AT * height
        cut = max(box.y2, box.x2, 1 - box.x1) >= EDGE
        return Posture(top, middle, height, length, None, cut)
    across, up = abs(shoulders[0] - hips[0]) * aspect, hips[1] - shoulders[1]
    trunk = math.degrees(math.atan2(up, across))
    cut = box.y2 >= EDGE and hips[1] >= INSIDE
    return Posture(shoulders[1], hips[1], height, length, trunk, cut)


def pair(pose: Pose, joints: tuple[Joint, Joint]) -> tuple[float, float] | None:
    """Returns the middle of two keypoints; None if they are weak."""
    one, other = pose[joints[0]], pose[joints[1]]
    if one.score + other.score < 2 * SURE:
        return None
    return (one.x + other.x) / 2, (one.y + other.y) / 2
