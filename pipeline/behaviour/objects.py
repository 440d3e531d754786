"""Running persons, abandoned objects and vehicles at rest, by the tracks of one camera.

These are not measured: there are no recordings with truth. They are off unless a rule names them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from pipeline.behaviour.found import Behaviour, behaviour, ramp
from pipeline.judge.refusal import Obstacle, Refuse
from pipeline.judge.refusal_words import below, seconds_of
from pipeline.judge.rules import TrackedFrame
from pipeline.tracking.track import Track
from pipeline.types import SECOND, ns

RUNS = 1.6  # bodies a second at which a person runs; 0.8 is a walk
STRIDE = SECOND  # ns; over which the speed is measured
SLOW = 3 * SECOND  # ns; who ran and was slower for so long runs anew
RESTS = 0.25  # heights that an object at rest may move
BESIDE = 1.0  # heights of the person, from the person to the object that belongs to it
BAGS = frozenset({"backpack", "handbag", "suitcase"})
VEHICLES = frozenset({"car", "truck", "bus", "motorcycle"})


class Running:
    """Persons who run; `least` is the score from which one is told."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._ran: dict[int, int] = {}  # track -> when it last ran, ns

    def see(
        self, seen: TrackedFrame, refuse: Refuse | None = None, *, tells: bool = True
    ) -> Iterator[Behaviour]:
        """Yields who begins to run in this frame; running is over when the hours begin."""
        time = seen.start
        self._ran = {track: at for track, at in self._ran.items() if time - at < SLOW}
        for track in seen.tracks:
            if track.label != "person" or track.last_seen != time:
                continue
            speed = _speed(track)
            score = ramp(speed, RUNS, 2 * RUNS)
            if score < self._least:
                if refuse is not None:
                    refuse("behaviour", partial(_too_weak, "running", score, self._least))
                continue
            if track.id not in self._ran:
                yield behaviour("running", track.box, score, f"{speed:.1f} bodies a second")
            self._ran[track.id] = time


class Abandoned:
    """Bags at rest whose person has left for `span` ns; `horizon` ns are remembered."""

    def __init__(self, span: int, least: float, horizon: int) -> None:
        self._span, self._least, self._horizon = span, least, horizon
        self._beside: dict[int, int] = {}  # bag -> when a person was last beside it, ns
        self._told: set[int] = set()

    def see(
        self, seen: TrackedFrame, refuse: Refuse | None = None, *, tells: bool = True
    ) -> Iterator[Behaviour]:
        """Yields the bags that become abandoned in this frame, each once; `tells` as in `Lying`."""
        bags = [track for track in seen.tracks if track.label in BAGS]
        persons = [track for track in seen.tracks if track.label == "person"]
        known = {bag.id for bag in bags}
        self._beside = {
            bag: at
            for bag, at in self._beside.items()
            if bag in known and seen.start - at < self._horizon
        }
        self._told = self._told & known if tells else set()
        for bag in bags:
            if any(_beside(person, bag) for person in persons):
                self._beside[bag.id] = seen.start
                self._told.discard(bag.id)
            alone = seen.start - self._beside.get(bag.id, seen.start)
            rests = alone >= self._span and bag.moved(self._span) < RESTS
            if rests and bag.id not in self._told and bag.score >= self._least:
                if tells:
                    self._told.add(bag.id)
                why = f"nobody beside it for {self._span / SECOND:g} s"
                yield behaviour("abandoned-object", bag.box, bag.score, why)
            elif refuse is not None and bag.id not in self._told:
                self._refuse("abandoned-object", bag, min(alone, self._span), refuse)

    def _refuse(self, label: str, bag: Track, alone: int, refuse: Refuse) -> None:
        if bag.score < self._least:
            refuse("behaviour", partial(_too_weak, label, bag.score, self._least))
        else:
            what = f"{bag.label} with nobody beside it, at rest,"
            refuse("seconds", partial(_too_short, label, what, alone, self._span))


class AtRest:
    """Vehicles that have not moved for `span` ns; `horizon` ns are remembered."""

    def __init__(self, span: int, least: float, horizon: int) -> None:
        self._span, self._least, self._horizon = span, least, horizon
        self._told: dict[int, int] = {}  # vehicle -> when it was last seen so, ns

    def see(
        self, seen: TrackedFrame, refuse: Refuse | None = None, *, tells: bool = True
    ) -> Iterator[Behaviour]:
        """Yields the vehicles that have rested for the whole span, each once while it rests.

        One in the place of a vehicle that stood still before is known. `tells` is as in `Lying`.
        """
        time = seen.start
        vehicles = [track for track in seen.tracks if track.label in VEHICLES]
        known = {vehicle.id for vehicle in vehicles}
        self._told = {
            vehicle: at
            for vehicle, at in self._told.items()
            if tells and vehicle in known and time - at < self._horizon
        }
        for vehicle in vehicles:
            rested = time - vehicle.first_seen
            if vehicle.moved(self._span) >= RESTS:
                self._told.pop(vehicle.id, None)
                rested = 0
            elif vehicle.id in seen.again:
                self._told[vehicle.id] = time
            elif rested >= self._span and vehicle.score >= self._least:
                news = vehicle.id not in self._told
                if tells:
                    self._told[vehicle.id] = time
                if news:
                    why = f"for {self._span / SECOND:g} s"
                    yield behaviour("vehicle-at-rest", vehicle.box, vehicle.score, why)
            if refuse is not None and vehicle.id not in self._told:
                label, what = "vehicle-at-rest", f"{vehicle.label} at rest"
                if vehicle.score < self._least:
                    refuse("behaviour", partial(_too_weak, label, vehicle.score, self._least))
                else:
                    refuse("seconds", partial(_too_short, label, what, rested, self._span))


def _too_weak(label: str, score: float, least: float) -> Obstacle:
    score = round(score, 3)
    return Obstacle(below(label, score, least), score, least, label)


def _too_short(label: str, what: str, lasted: int, span: int) -> Obstacle:
    seconds, wanted = lasted / SECOND, span / SECOND
    why = f"{what} for {seconds_of(seconds)} < {seconds_of(wanted)}"
    return Obstacle(why, round(seconds, 3), wanted, label)


def _speed(track: Track) -> float:
    """Bodies a second over the last stride; 0 while the track is shorter."""
    here = track.feet
    before = [point for point in track.path if here.time - point.time >= STRIDE]
    if not before:
        return 0.0
    way = math.hypot((here.x - before[-1].x) * track.aspect, here.y - before[-1].y)
    body = max(track.box.y2 - track.box.y1, 1e-3)
    return way / body / ((here.time - before[-1].time) / ns(1))


def _beside(person: Track, bag: Track) -> bool:
    """Whether the bag is at most `BESIDE` heights of the person away from the person's box."""
    one, other = person.box, bag.box
    across = max(one.x1 - other.x2, other.x1 - one.x2, 0.0) * person.aspect
    down = max(one.y1 - other.y2, other.y1 - one.y2, 0.0)
    return math.hypot(across, down) <= BESIDE * (one.y2 - one.y1)
