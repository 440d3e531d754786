"""The pose of a person: 17 keypoints of COCO, packed into the bytes of `Box.keypoints`.

A keypoint is x, y and score. x and y are fractions of the frame, like the corners of a box, and the
score is 0 to 1. Each is rounded to thousandths and stored as uint16, little-endian. So all code,
live or in a replay, compares the same numbers.

Lin et al. 2014, arXiv:1405.0312 (COCO). Left and right are those of the person.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple


class Joint(IntEnum):
    """The keypoints in the order in which they are stored."""

    NOSE = 0
    LEFT_EYE = 1
    RIGHT_EYE = 2
    LEFT_EAR = 3
    RIGHT_EAR = 4
    LEFT_SHOULDER = 5
    RIGHT_SHOULDER = 6
    LEFT_ELBOW = 7
    RIGHT_ELBOW = 8
    LEFT_WRIST = 9
    RIGHT_WRIST = 10
    LEFT_HIP = 11
    RIGHT_HIP = 12
    LEFT_KNEE = 13
    RIGHT_KNEE = 14
    LEFT_ANKLE = 15
    RIGHT_ANKLE = 16


class Keypoint(NamedTuple):
    """One keypoint: x and y in fractions of the frame, and its score, 0 to 1."""

    x: float
    y: float
    score: float


Pose = tuple[Keypoint, ...]  # 17 keypoints, by the numbers of `Joint`

JOINTS = len(Joint)
STEP = 1000  # a stored number is a whole count of thousandths
_LAYOUT = struct.Struct(f"<{3 * JOINTS}H")
PACKED_BYTES = _LAYOUT.size


def pack(points: Iterable[tuple[float, float, float]]) -> bytes:
    """Returns the 102 bytes of 17 keypoints (x, y, score), rounded; values are clipped to 0 to 1.

    Raises ValueError for another number of keypoints, and for NaN.
    """
    numbers = [round(min(max(value, 0.0), 1.0) * STEP) for point in points for value in point]
    if len(numbers) != 3 * JOINTS:
        msg = f"a pose has {JOINTS} keypoints of 3 numbers, not {len(numbers)} numbers"
        raise ValueError(msg)
    return _LAYOUT.pack(*numbers)


def unpack(keypoints: bytes) -> Pose | None:
    """Returns the keypoints of `Box.keypoints`; None when it is empty: nobody estimated a pose.

    Raises ValueError for another number of bytes than 102.
    """
    if not keypoints:
        return None
    if len(keypoints) != PACKED_BYTES:
        msg = f"a pose has {PACKED_BYTES} bytes, not {len(keypoints)}"
        raise ValueError(msg)
    numbers = [value / STEP for value in _LAYOUT.unpack(keypoints)]
    return tuple(Keypoint(*numbers[first : first + 3]) for first in range(0, len(numbers), 3))
