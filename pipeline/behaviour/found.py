"""What the judges of behaviours find."""

from __future__ import annotations

import msgspec

from pipeline.types import Box, Corners


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """A behaviour that was recognized; a score of 0.5 is the operating point of its label."""

    label: str
    score: float
    why: str  # what carried it, for a person to read
    box: Corners
    feet: tuple[float, float]  # in fractions of the frame: decides whether it is in a zone
    object: str = "person"


def ramp(value: float, half: float, full: float) -> float:
    """Maps a value to 0 to 1: 0.5 at `half` and 1 at `full`, linear, also where `full` is less."""
    return min(1.0, max(0.0, 0.5 + 0.5 * (value - half) / (full - half)))


def behaviour(label: str, box: Box, score: float, why: str) -> Behaviour:
    """Returns the behaviour of what is in one box."""
    return Behaviour(
        label=label,
        score=round(score, 3),
        why=why,
        box=(box.x1, box.y1, box.x2, box.y2),
        feet=((box.x1 + box.x2) / 2, box.y2),
        object=box.label,
    )
