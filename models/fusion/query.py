"""The input of a fusion head for one window; without arrays, so that rules alone need no numpy."""

from __future__ import annotations

import msgspec

from pipeline.behaviour.evidence import Evidence
from pipeline.judge.rules import RuleFinding
from pipeline.types import Window


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """One tracked object in one frame: speed in its own heights per second, area of the frame."""

    group: str
    speed: float
    area: float
    in_zone: bool
    still: bool


class FrameSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The tracked objects of one frame `[start, end)` ns of a camera.

    `luma` and `sharpness` are those of the last frame that was looked at (`Detections`).
    `behaviour` is None where the camera has no poses.
    """

    source: str
    start: int
    end: int
    objects: tuple[Object, ...]
    luma: float = -1.0
    sharpness: float = -1.0
    behaviour: Evidence | None = None


class HeadQuery(msgspec.Struct, frozen=True):
    """A closed window with the findings and frame summaries that overlap it: a head's input."""

    window: Window
    findings: tuple[RuleFinding, ...]
    sights: tuple[FrameSummary, ...] = ()


def newest(question: HeadQuery, span: int) -> HeadQuery:
    """Returns the query for the window's last `span` ns only: whether an event still lasts."""
    window = question.window
    start = window.end - span
    return HeadQuery(
        msgspec.structs.replace(
            window,
            start=start,
            observations=tuple(o for o in window.observations if o.end > start),
        ),
        tuple(f for f in question.findings if f.end > start),
        tuple(s for s in question.sights if s.end > start),
    )
