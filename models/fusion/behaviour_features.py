"""The numbers of a window that behaviours give: falls, lying, limbs, and who is near whom."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.fusion.query import FrameSummary

BEHAVIOURS = (
    "known",  # 1 if a person of the window has a pose; else 0, as all others are then
    "posed.share",  # of the persons
    "fall.most",  # score, 0 to 1
    "lying.most",  # likewise
    "down.share",  # of the persons
    "tilt.most",  # degrees by which a trunk came down within a second, over 90
    "limbs.most",  # log1p of bodies a second
    "limbs.mean",  # over the frames with somebody, of the highest in each
    "outline.most",  # log1p of bodies a second
    "energy.most",  # recorded motion in a person's box, 0 to 1
    "nearness.most",  # of two persons: 1 where they touch, 0 where nobody is near
    "overlap.most",  # of two persons' boxes
    "approach.most",  # log1p of bodies
)


def behaviours(sights: Sequence[FrameSummary]) -> list[float]:
    """Returns the numbers of BEHAVIOURS; all 0 where nobody has a pose."""
    seen = [sight.behaviour for sight in sights if sight.behaviour is not None]
    if not any(one.posed for one in seen):
        return [0.0] * len(BEHAVIOURS)
    persons = sum(one.persons for one in seen)
    limbs = [one.limbs for one in seen if one.persons]
    return [
        1.0,
        sum(one.posed for one in seen) / persons,
        max(one.fall for one in seen),
        max(one.lying for one in seen),
        sum(one.down for one in seen) / persons,
        max(one.tilt for one in seen) / 90,
        math.log1p(max(limbs)),
        math.log1p(sum(limbs) / len(limbs)),
        math.log1p(max(one.outline for one in seen)),
        max(one.energy for one in seen),
        max(one.nearness for one in seen),
        max(one.overlap for one in seen),
        math.log1p(max(one.approach for one in seen)),
    ]
