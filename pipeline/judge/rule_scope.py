"""Where and when the rule of a camera is active, and why an object does not count for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from zoneinfo import ZoneInfo

import msgspec

from pipeline.config.schedule import Schedule
from pipeline.judge.refusal import OFF, Ask, Obstacle, Refuse
from pipeline.judge.refusal_words import below, off_hours, percent
from pipeline.judge.rules import TrackedFrame
from pipeline.tracking.track import Track
from pipeline.types import Box
from pipeline.zones import Polygon, feet

CLOSE = 0.1  # of the frame; what is so far from a zone or a line has nearly been in it


class RuleScope(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when a camera's rule is active: polygons by camera, objects, schedule.

    `hours` and `zone` are the schedule and the name of the zone as the config has them.
    """

    zones: Mapping[str, Polygon]
    objects: frozenset[str]
    schedule: Schedule
    timezone: ZoneInfo
    horizon: int  # ns; what was not seen for so long is forgotten
    min_score: float = 0.0
    hours: str = ""
    zone: str = ""

    def holds(self, seen: TrackedFrame) -> bool:
        """Whether the rule is active in this frame."""
        return seen.watched and self.schedule.contains(seen.start, self.timezone)

    def inside(self, seen: TrackedFrame, refuse: Refuse | None = None) -> Iterator[Track]:
        """Yields tracks of wanted objects whose feet are in the zone while the schedule is active.

        A track that the detector missed in this frame counts at its last position: a miss does not
        mean that the object left.
        """
        polygon = self.zones.get(seen.source)
        if polygon is None:
            return
        if not self.holds(seen):
            if refuse is not None:
                fit = (track for track in seen.tracks if not self._against(track, polygon))
                self.refuse_off(seen, refuse, fit)
            return
        for track in seen.tracks:
            against = self._against(track, polygon)
            if not against:
                yield track
            elif refuse is not None:
                refuse(against, partial(self._obstacle, against, track, polygon))
        if refuse is not None:
            self.refuse_unused(seen, refuse, lambda box: polygon.contains(*feet(box)))

    def _against(self, track: Track, polygon: Polygon) -> str:
        """Why a track does not count, or ""."""
        if track.label not in self.objects:
            return "object"
        if track.score < self.min_score:
            return "rule-score"
        return "" if polygon.contains(*feet(track.box)) else "zone"

    def _obstacle(self, against: str, track: Track, polygon: Polygon) -> Obstacle:
        far = polygon.distance(*feet(track.box))
        if against == "rule-score":
            why = below(track.label, track.score, self.min_score, "min_score of the rule")
            near = None if far == 0 else False
            return Obstacle(why, track.score, self.min_score, track.label, near=near)
        if against == "zone":
            why = f"feet outside zone {self.zone} by {percent(far)}"
            why = why if track.label == "person" else f"{track.label}: {why}"
            seen = self._seen(track, why, near=far <= CLOSE)
            return msgspec.structs.replace(seen, share=1 - far)
        return self._seen(track, self.unnamed(track), near=far == 0)

    def unnamed(self, track: Track) -> str:
        """Says that the rule does not name a class of objects."""
        return f"{track.label} is none of the rule's objects ({', '.join(sorted(self.objects))})"

    def _seen(self, track: Track, why: str, *, near: bool) -> Obstacle:
        return Obstacle(why, track.score, self.min_score or None, track.label, near=near)

    def refuse_off(self, seen: TrackedFrame, refuse: Refuse, fit: Iterator[Track]) -> None:
        """Refuses because the rule does not hold; `fit` are the tracks that would have counted."""
        refuse("schedule" if seen.watched else OFF, partial(self._off, seen, fit))

    def _off(self, seen: TrackedFrame, fit: Iterator[Track]) -> Obstacle:
        best = max(fit, key=lambda track: track.score, default=None)
        why = off_hours(self.hours, seen.start, self.timezone)
        return Obstacle(why, None if best is None else best.score, near=best is not None)

    def refuse_unused(
        self, seen: TrackedFrame, refuse: Refuse, fits: Callable[[Box], bool]
    ) -> None:
        """Passes on why boxes of wanted objects became no tracks; only those that fit were near."""
        for each in seen.unused:
            if each.box is None:
                refuse(each.reason, each.ask)
            elif each.box.label in self.objects:
                refuse(each.reason, partial(_if_it_fits, each.ask, each.box, fits))


def _if_it_fits(ask: Ask, box: Box, fits: Callable[[Box], bool]) -> Obstacle:
    return ask() if fits(box) else msgspec.structs.replace(ask(), near=False)
