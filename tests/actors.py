"""Made persons: boxes with poses, frame by frame, at 5 frames a second.

A person is 0.5 of the frame high and has the postures of `POSTURES`; between two postures every
part moves evenly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.judge.pose import JOINTS, Joint, pack
from pipeline.types import Box

FPS = 5
ASPECT = 16 / 9
HEIGHT = 0.5  # of the frame


class Body(NamedTuple):
    """Heights over the floor and widths, in parts of the standing height."""

    top: float
    shoulders: float
    hips: float
    width: float
    lean: float  # from the hips to the shoulders, sideways


POSTURES = {
    "stands": Body(1.0, 0.82, 0.5, 0.3, 0.0),
    "sits": Body(0.74, 0.58, 0.28, 0.4, 0.02),
    "bends": Body(0.62, 0.48, 0.5, 0.55, 0.32),
    "kneels": Body(0.72, 0.55, 0.27, 0.35, 0.0),
    "squats": Body(0.6, 0.45, 0.16, 0.4, 0.05),
    "on floor": Body(0.52, 0.36, 0.07, 0.45, 0.0),
    "lies": Body(0.2, 0.12, 0.1, 1.0, 0.3),
}
Step = tuple[str, float]  # posture, s: how long it takes to get there, or how long it is kept


def played(steps: Sequence[Step]) -> Iterator[Body]:
    """The body of each frame. The first posture is kept; another posture is reached in its time."""
    before: Body | None = None
    for name, seconds in steps:
        after, frames = POSTURES[name], round(seconds * FPS)
        for frame in range(1, frames + 1):
            share = frame / frames
            old = after if before is None else before
            yield Body(*(a + (b - a) * share for a, b in zip(old, after, strict=True)))
        before = after


def person(
    body: Body,
    x: float = 0.5,
    floor: float = 0.9,
    *,
    score: float = 0.9,
    posed: bool = True,
    aspect: float = ASPECT,
) -> Box:
    """The box of a person with the pose of a body; `posed` false leaves the pose out.

    `aspect` is the width by height of the frame.
    """
    width = body.width * HEIGHT / aspect
    box = Box(
        label="person",
        score=score,
        x1=round(x - width / 2, 3),
        y1=round(floor - body.top * HEIGHT, 3),
        x2=round(x + width / 2, 3),
        y2=round(min(floor, 1.0), 3),
        keypoints=pose(body, x, floor, aspect) if posed else b"",
    )
    return box


def pose(body: Body, x: float, floor: float, aspect: float = ASPECT) -> bytes:
    """Shoulders and hips are sure; the other keypoints have a score of 0.1."""
    points = [(x, floor - body.top * HEIGHT, 0.1)] * JOINTS
    lean = body.lean * HEIGHT / aspect
    for joint in (Joint.LEFT_SHOULDER, Joint.RIGHT_SHOULDER):
        points[joint] = (x + lean / 2, floor - body.shoulders * HEIGHT, 0.8)
    for joint in (Joint.LEFT_HIP, Joint.RIGHT_HIP):
        points[joint] = (x - lean / 2, floor - body.hips * HEIGHT, 0.8)
    return pack(points)
