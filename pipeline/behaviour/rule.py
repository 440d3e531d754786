"""`rule: behaviour`: what persons and things do, over the frames of some seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from zoneinfo import ZoneInfo

from pipeline.behaviour.falls import Falls
from pipeline.behaviour.fights import FightHead, Fights
from pipeline.behaviour.found import Behaviour
from pipeline.behaviour.lying import Lying
from pipeline.behaviour.objects import Abandoned, AtRest, Running
from pipeline.behaviour.persons import Persons
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schedule import Schedule
from pipeline.judge.refusal import OFF, Obstacle, Refuse
from pipeline.judge.refusal_words import off_hours
from pipeline.judge.rules import VISION, Make, RuleContext, RuleFinding, TrackedFrame, VisionRule
from pipeline.types import ns
from pipeline.zones import Polygon

KIND = "behaviour"
WORDS = {
    "fall": "person fell",
    "lying": "person lies",
    "fight": "fight",
    "running": "person runs",
    "abandoned-object": "abandoned object",
    "vehicle-at-rest": "vehicle at rest",
}


class BehaviourJudge:
    """Judges the behaviours of one camera; `zone` None is the whole frame."""

    def __init__(
        self,
        name: str,
        rule: BehaviourRule,
        zone: Polygon | None,
        *,
        camera: str,
        timezone: ZoneInfo,
        horizon: float,
        fight: FightHead | None = None,
    ) -> None:
        self._name, self._rule, self._zone, self._camera = name, rule, zone, camera
        self.cameras = frozenset((camera,))
        self._schedule, self._timezone = Schedule.parse(rule.schedule), timezone
        memory = ns(horizon - BehaviourRule.BEGINNING)
        self._persons = Persons(ns(horizon))
        self._falls = Falls(rule.labels.get("fall", 0.5), memory=memory)
        self._fights: Fights | None = None
        if "fight" in rule.labels:
            if fight is None:
                msg = f"{name}: there is no head that recognizes a fight"
                raise ValueError(msg)
            self._fights = Fights(fight, rule.labels["fight"])
        least = rule.labels
        makers: dict[str, Callable[[], Running | Abandoned | AtRest]] = {
            "running": lambda: Running(least["running"]),
            "abandoned-object": lambda: Abandoned(
                ns(rule.seconds), least["abandoned-object"], ns(horizon)
            ),
            "vehicle-at-rest": lambda: AtRest(
                ns(rule.seconds), least["vehicle-at-rest"], ns(horizon)
            ),
        }
        self._others = [make() for label, make in makers.items() if label in least]
        self._lying = Lying(ns(rule.seconds), memory)

    def see(self, seen: TrackedFrame, refuse: Refuse | None = None) -> Sequence[RuleFinding]:
        """Returns one finding for each behaviour that becomes certain in this frame.

        What lasts (lying, a thing at rest) is told when the hours or the mode of the rule begin,
        if it lasts then. What happened before (a fall, a fight, running) is not.
        """
        if seen.source != self._camera:
            return ()
        holds = seen.watched and self._schedule.contains(seen.start, self._timezone)
        told = list(self._told(seen, refuse if holds else None, tells=holds))
        if not holds:
            if refuse is not None:
                refuse("schedule" if seen.watched else OFF, partial(self._off, seen, told))
            return ()
        if refuse is not None:
            self._refuse(seen, told, refuse)
        return [self._finding(each, seen) for each in told if self._inside(each)]

    def needs(self, limit: int) -> int:
        """As `Persons.needs`."""
        return self._persons.needs(limit)

    def _refuse(self, seen: TrackedFrame, told: Sequence[Behaviour], refuse: Refuse) -> None:
        for each in told:
            if not self._inside(each):
                refuse("zone", partial(self._outside, each))
        for unused in seen.unused:
            if unused.box is None:
                refuse(unused.reason, unused.ask)

    def _outside(self, each: Behaviour) -> Obstacle:
        why = f"{WORDS[each.label]} outside zone {self._rule.zone}"
        return Obstacle(why, each.score, self._rule.labels[each.label], each.label)

    def _off(self, seen: TrackedFrame, told: Sequence[Behaviour]) -> Obstacle:
        score = max((each.score for each in told if self._inside(each)), default=None)
        why = off_hours(self._rule.schedule, seen.start, self._timezone)
        return Obstacle(why, score, near=score is not None)

    def _told(
        self, seen: TrackedFrame, refuse: Refuse | None, *, tells: bool
    ) -> Iterator[Behaviour]:
        persons, least = self._persons.see(seen), self._rule.labels
        falls = self._falls.see(persons, seen.start, refuse if "fall" in least else None)
        if "fall" in least:
            yield from falls
        if "lying" in least:
            yield from self._lying.see(
                persons, self._falls, seen.start, least["lying"], refuse, tells=tells
            )
        for other in self._others:
            yield from other.see(seen, refuse, tells=tells)
        if self._fights is not None:
            yield from self._fights.see(
                persons, seen.aspect, seen.start, gated=seen.gated, refuse=refuse
            )

    def _inside(self, each: Behaviour) -> bool:
        return self._zone is None or self._zone.contains(*each.feet)

    def _finding(self, each: Behaviour, seen: TrackedFrame) -> RuleFinding:
        place = f" in zone {self._rule.zone}" if self._rule.zone else ""
        return RuleFinding(
            rule=self._name,
            label=each.label,
            severity=self._rule.severity,
            modality=VISION,
            kind=KIND,
            source=seen.source,
            start=seen.start,
            end=seen.end,
            score=each.score,
            sure=True,
            zone=self._rule.zone,
            object=each.object,
            box=each.box,
            reason=f"{WORDS[each.label]}{place} (camera {seen.source}): {each.why}",
        )


def behaviours(name: str, rule: BehaviourRule, of: RuleContext) -> Iterator[VisionRule]:
    """Yields the judge of each camera that the rule is about."""
    for camera, settings in of.site.cameras.items():
        zone = settings.zones.get(rule.zone)
        if zone is not None or not rule.zone:
            yield BehaviourJudge(
                name,
                rule,
                Polygon.parse(zone.coordinates) if zone else None,
                camera=camera,
                timezone=of.timezone,
                horizon=of.site.windows.horizon,
                fight=of.fight,
            )


BEHAVES: Mapping[type, Make[VisionRule]] = {BehaviourRule: behaviours}
