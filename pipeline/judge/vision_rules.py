"""Rules for cameras: objects in zones, and crossed lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from pipeline.config.rule_kinds import CrowdRule, LineRule, LoiteringRule, ZoneKind, ZoneRule
from pipeline.config.schedule import Schedule
from pipeline.judge.refusal import Obstacle, Refuse
from pipeline.judge.refusal_words import clock, percent, seconds_of
from pipeline.judge.rule_scope import CLOSE, RuleScope
from pipeline.judge.rules import VISION, Make, RuleContext, RuleFinding, TrackedFrame, VisionRule
from pipeline.tracking.track import Track
from pipeline.types import SECOND, ns
from pipeline.zones import LineCounter, LineSegment, Polygon, feet


def _lasting(seen: TrackedFrame) -> set[int]:
    """The tracks whose report a rule remembers.

    When a rule begins to hold, whoever moves in its zone is news; what stood there before is not.
    Who was hidden for some seconds and comes out is no news.
    """
    if not seen.watched:
        return set(seen.still)
    return {track.id for track in seen.tracks} | seen.hidden


def _objects(tracks: Sequence[Track]) -> dict[str, Any]:
    """The class that all tracks have, or none, and the smallest box around them."""
    boxes = [track.box for track in tracks]
    labels = {track.label for track in tracks}
    corners = (
        min(box.x1 for box in boxes),
        min(box.y1 for box in boxes),
        max(box.x2 for box in boxes),
        max(box.y2 for box in boxes),
    )
    return {"object": labels.pop() if len(labels) == 1 else "", "box": corners}


class _State(msgspec.Struct):
    """A state that a rule knows; ns."""

    last: int  # when it was seen last
    said: int | None = None  # the second of its last report; None: it is known without one


class _LevelRule:
    """Reports when a state begins, and once in each second while it lasts.

    A state that was not seen for `horizon` ns is forgotten: a restart would not know it either.
    """

    def __init__(self, name: str, rule: ZoneKind, label: str, horizon: int) -> None:
        self._made: dict[str, Any] = {
            "rule": name,
            "label": label,
            "severity": rule.severity,
            "modality": VISION,
            "zone": rule.zone,
        }
        self._horizon = horizon
        self._known: dict[tuple[str, int], _State] = {}  # by camera and key

    def say(
        self, seen: TrackedFrame, key: int, score: float, reason: str, of: Sequence[Track]
    ) -> Iterator[RuleFinding]:
        """Yields the finding of the objects `of`, unless this second has one for the `key`."""
        state = self.lasts(seen, key)
        second, last = seen.start // SECOND, state.said
        if last == second:
            return
        state.said = second
        yield RuleFinding(
            **self._made,
            source=seen.source,
            start=seen.start,
            end=seen.end,
            score=score,
            sure=True,
            reason=reason,
            news=last is None,
            **_objects(of),
        )

    def lasts(self, seen: TrackedFrame, key: int) -> _State:
        """Notes that a state is seen in this frame, whether it is reported or not."""
        state = self._known.setdefault((seen.source, key), _State(seen.start))
        state.last = seen.start
        return state

    def told(self, source: str, key: int) -> bool:
        """Returns whether this state is known, and so need not be reported again."""
        return (source, key) in self._known

    def stands(self, seen: TrackedFrame, track: Track, timezone: ZoneInfo) -> Obstacle:
        """Says that an object stands still, and that it was reported when it came."""
        said = self._known[seen.source, track.id].said
        since = "" if said is None else f" since {clock(said * SECOND, timezone)}"
        return Obstacle(
            f"{track.label} stationary{since}, told once", track.score, label=track.label
        )

    def keep(self, seen: TrackedFrame, keys: set[int]) -> None:
        """Forgets states that ended at this camera; when one begins again, it is reported again."""
        gone = [
            (source, key)
            for (source, key), state in self._known.items()
            if source == seen.source
            and (key not in keys or seen.start - state.last >= self._horizon)
        ]
        for each in gone:
            del self._known[each]


class ZoneIntrusion:
    """`rule: zone`: an object is in a zone."""

    def __init__(self, name: str, rule: ZoneRule, place: RuleScope) -> None:
        self._zone, self._place, self.cameras = rule.zone, place, place.zones.keys()
        self._level = _LevelRule(name, rule, rule.label, place.horizon)

    def see(self, seen: TrackedFrame, refuse: Refuse | None = None) -> Sequence[RuleFinding]:
        """Returns one finding per track on entering, and once per second until it leaves or
        stands still."""
        inside = list(self._place.inside(seen, refuse))
        self._level.keep(seen, _lasting(seen))
        found: list[RuleFinding] = []
        for track in inside:
            told = track.id in seen.still and self._level.told(seen.source, track.id)
            known = told or track.id in seen.again
            shown = track.last_seen == seen.start
            if known and shown:
                self._level.lasts(seen, track.id)
            if shown and not known:
                reason = f"{track.label} in zone {self._zone} (camera {seen.source})"
                found += self._level.say(seen, track.id, track.score, reason, [track])
            elif refuse is not None and told:
                refuse("still", partial(self._level.stands, seen, track, self._place.timezone))
            elif refuse is not None and not known:
                refuse("unseen", partial(_unseen, track))
        return found


class Loitering:
    """`rule: loitering`: an object stays in a zone."""

    def __init__(self, name: str, rule: LoiteringRule, place: RuleScope) -> None:
        self._rule, self._place, self.cameras = rule, place, place.zones.keys()
        self._level = _LevelRule(name, rule, rule.label, place.horizon)
        self._since: dict[tuple[str, int], int] = {}

    def see(self, seen: TrackedFrame, refuse: Refuse | None = None) -> Sequence[RuleFinding]:
        """Returns one finding per track once it has stayed long enough, then one per second.

        The time goes on for an object that is hidden and comes out in the zone.
        """
        inside = {track.id: track for track in self._place.inside(seen, refuse)}
        self._level.keep(seen, _lasting(seen))
        kept = inside.keys() | (seen.hidden if self._place.holds(seen) else set())
        gone = [k for k in self._since if k[0] == seen.source and k[1] not in kept]
        for key in gone:
            del self._since[key]
        found: list[RuleFinding] = []
        for track in inside.values():
            since = self._since.setdefault((seen.source, track.id), seen.start)
            told = track.id in seen.still and self._level.told(seen.source, track.id)
            stays = seen.start - since >= ns(self._rule.seconds)
            if track.id in seen.again or (told and stays):
                self._level.lasts(seen, track.id)
            if track.id in seen.again:
                continue
            if stays and not told:
                reason = (
                    f"{track.label} in zone {self._rule.zone} for {self._rule.seconds:g} s"
                    f" (camera {seen.source})"
                )
                found += self._level.say(seen, track.id, track.score, reason, [track])
            elif refuse is not None and told:
                refuse("still", partial(self._level.stands, seen, track, self._place.timezone))
            elif refuse is not None:
                what = f"{track.label} in zone {self._rule.zone}"
                refuse("seconds", partial(_too_short, what, seen.start - since, self._rule.seconds))
        return found


class Crowd:
    """`rule: crowd`: many objects are in a zone at once."""

    def __init__(self, name: str, rule: CrowdRule, place: RuleScope) -> None:
        self._rule, self._place, self.cameras = rule, place, place.zones.keys()
        self._level = _LevelRule(name, rule, rule.label, place.horizon)
        self._since: dict[str, int] = {}

    def see(self, seen: TrackedFrame, refuse: Refuse | None = None) -> Sequence[RuleFinding]:
        """Returns one finding when the crowd has lasted `seconds`, then one per second."""
        inside = list(self._place.inside(seen, refuse))
        if len(inside) < self._rule.count:
            if refuse is not None and inside:
                refuse("count", partial(self._too_few, len(inside)))
            self._since.pop(seen.source, None)
            self._level.keep(seen, set())
            return ()
        since = self._since.setdefault(seen.source, seen.start)
        if seen.start - since < ns(self._rule.seconds):
            if refuse is not None:
                what = f"{len(inside)} objects in zone {self._rule.zone}"
                refuse("seconds", partial(_too_short, what, seen.start - since, self._rule.seconds))
            return ()
        reason = f"{len(inside)} objects in zone {self._rule.zone} (camera {seen.source})"
        scores = sorted((track.score for track in inside), reverse=True)
        return list(self._level.say(seen, 0, scores[self._rule.count - 1], reason, inside))

    def _too_few(self, found: int) -> Obstacle:
        why = f"{found} objects in zone {self._rule.zone} < count {self._rule.count}"
        return Obstacle(why, found, self._rule.count)


def _too_short(what: str, lasted: int, wanted: float) -> Obstacle:
    seconds = lasted / SECOND
    why = f"{what} for {seconds_of(seconds)} < {seconds_of(wanted)}"
    return Obstacle(why, round(seconds, 3), wanted)


def _unseen(track: Track) -> Obstacle:
    why = f"{track.label} in the zone was missed by the detector in this frame"
    return Obstacle(why, track.score, label=track.label, near=False)


class LineCrossing:
    """`rule: line`: an object crosses a line in the configured direction."""

    def __init__(
        self, name: str, rule: LineRule, place: RuleScope, lines: Mapping[str, LineCounter]
    ) -> None:
        self._name, self._rule, self._place, self._lines = name, rule, place, lines
        self.cameras = lines.keys()

    def see(self, seen: TrackedFrame, refuse: Refuse | None = None) -> Sequence[RuleFinding]:
        """Returns one finding per crossing.

        An object that comes out of a hiding place begins anew: nobody saw its way.
        """
        counter = self._lines.get(seen.source)
        if counter is None:
            return ()
        found = []
        for track in seen.tracks:
            direction = counter.push(track.sight, feet(track.box), seen.start)
            wanted = direction and self._rule.direction in (direction, "both")
            if refuse is not None:
                self._refuse(seen, track, direction, refuse)
            if wanted and track.label in self._place.objects and self._place.holds(seen):
                found.append(
                    RuleFinding(
                        rule=self._name,
                        label=self._rule.label,
                        severity=self._rule.severity,
                        modality=VISION,
                        source=seen.source,
                        start=seen.start,
                        end=seen.end,
                        score=track.score,
                        sure=True,
                        line=self._rule.line,
                        **_objects([track]),
                        reason=f"{track.label} crossed line {self._rule.line} going {direction}"
                        f" (camera {seen.source})",
                    )
                )
        if refuse is not None and self._place.holds(seen):
            self._place.refuse_unused(seen, refuse, counter.close)
        return found

    def _refuse(
        self, seen: TrackedFrame, track: Track, direction: str | None, refuse: Refuse
    ) -> None:
        """Says why a track is no finding, if it is none."""
        if track.label not in self._place.objects:
            if direction:
                refuse("object", partial(_crossed, track, self._place.unnamed(track)))
        elif not self._place.holds(seen):
            self._place.refuse_off(seen, refuse, iter([track] if direction else []))
        elif not direction:
            refuse("line", partial(self._uncrossed, seen.source, track))
        elif self._rule.direction not in (direction, "both"):
            why = f"{track.label} crossed line {self._rule.line} going {direction}"
            why = f"{why}; the rule wants {self._rule.direction}"
            refuse("direction", partial(_crossed, track, why))

    def _uncrossed(self, camera: str, track: Track) -> Obstacle:
        why, far = self._lines[camera].missed(track.id)
        why = f"line {self._rule.line} not crossed: {track.label} is {percent(far)} away, and {why}"
        return Obstacle(
            why, track.score, label=track.label, near=far <= CLOSE, share=max(0.0, 1 - far)
        )


def _crossed(track: Track, why: str) -> Obstacle:
    return Obstacle(why, track.score, label=track.label)


def _line(name: str, rule: LineRule, of: RuleContext) -> Iterator[VisionRule]:
    lines = {
        camera: LineCounter(
            LineSegment.parse(seen.lines[rule.line].coordinates),
            rule.hysteresis,
            ns(of.site.windows.horizon),
        )
        for camera, seen in of.site.cameras.items()
        if rule.line in seen.lines
    }
    yield LineCrossing(name, rule, _scope(rule, of, {}, rule.objects), lines)


def _at_zones(make: Callable[[str, Any, RuleScope], VisionRule]) -> Make[VisionRule]:
    """Creates the rule for each camera with its zone; each zone may have other objects."""

    def made(name: str, rule: ZoneKind, of: RuleContext) -> Iterator[VisionRule]:
        for camera, seen in of.site.cameras.items():
            if zone := seen.zones.get(rule.zone):
                zones = {camera: Polygon.parse(zone.coordinates)}
                yield make(name, rule, _scope(rule, of, zones, rule.objects or zone.objects))

    return made


def _scope(
    rule: ZoneKind | LineRule, of: RuleContext, zones: Mapping[str, Polygon], objects: Sequence[str]
) -> RuleScope:
    return RuleScope(
        zones=zones,
        objects=frozenset(objects),
        schedule=Schedule.parse(rule.schedule),
        timezone=of.timezone,
        horizon=ns(of.site.windows.horizon),
        min_score=rule.min_score if isinstance(rule, ZoneRule) else 0.0,
        hours=rule.schedule,
        zone=rule.zone if isinstance(rule, ZoneKind) else "",
    )


SEES: Mapping[type, Make[VisionRule]] = {
    ZoneRule: _at_zones(ZoneIntrusion),
    LoiteringRule: _at_zones(Loitering),
    CrowdRule: _at_zones(Crowd),
    LineRule: _line,
}
