"""Persons of one camera who lie, or stay on the floor after a fall, for a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from pipeline.behaviour.falls import Falls
from pipeline.behaviour.found import Behaviour, behaviour, ramp
from pipeline.behaviour.persons import Person
from pipeline.behaviour.posture import Posture
from pipeline.judge.refusal import Obstacle, Refuse
from pipeline.judge.refusal_words import below, seconds_of
from pipeline.types import SECOND

PAUSE = SECOND  # ns; a person who does not seem to lie for so long has got up


class LyingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The values at which a posture has a score of 0.5."""

    trunk: float = 35  # degrees to the floor
    flat: float = 0.7  # the height of the body by its length, where the trunk is known
    flat_alone: float = 0.5  # likewise, where the trunk is not known or points to the camera


class _Run(msgspec.Struct):
    """A time in which a person lies; ns."""

    since: int
    last: int
    score: float
    told: bool = False


class Lying:
    """Judges the persons of one camera, frame by frame.

    `span` is how long a person must lie, and `memory` how far back a fall is remembered, ns. The
    span runs on while a person is out of sight for a short time, and ends in a frame that shows it.
    """

    def __init__(self, span: int, memory: int, limits: LyingLimits | None = None) -> None:
        self._span, self._memory = span, memory
        self._limits = limits or LyingLimits()
        self._runs: dict[int, _Run] = {}  # by the number of the person

    def see(
        self,
        persons: Sequence[Person],
        falls: Falls,
        time: int,
        least: float = 0.5,
        refuse: Refuse | None = None,
        *,
        tells: bool = True,
    ) -> list[Behaviour]:
        """Returns who has lain for the whole span with a score of `least` or more, each once.

        While the rule does not tell, they come in every frame, and once again when it does.
        """
        known = {one.number for one in persons}
        self._runs = {number: run for number, run in self._runs.items() if number in known}
        if not tells:
            for before in self._runs.values():
                before.told = False
        found = []
        for one in persons:
            run = self._run(one, falls, time, least, refuse)
            shown = run is not None and one.seen == time
            if run is not None and shown and not run.told and time - run.since >= self._span:
                run.told = tells
                seconds = self._span / SECOND
                found.append(behaviour("lying", one.box, run.score, f"for {seconds:g} s"))
            elif refuse is not None and run is not None and not run.told:
                refuse("seconds", partial(self._too_short, time - run.since))
        return found

    def _too_short(self, lasted: int) -> Obstacle:
        seconds, wanted = lasted / SECOND, self._span / SECOND
        why = f"lying for {seconds_of(seconds)} < {seconds_of(wanted)}"
        return Obstacle(why, round(seconds, 3), wanted, "lying")

    def _run(
        self, one: Person, falls: Falls, time: int, least: float, refuse: Refuse | None
    ) -> _Run | None:
        run = self._runs.get(one.number)
        if one.seen < time:
            return run
        score = self.score(one.now)
        if falls.fallen(one, time - self._memory):
            score = max(score, 0.5 + score / 2)
        if refuse is not None and score < least:
            refuse("behaviour", partial(_too_weak, score, least))
        if score >= least:
            if run is None:
                run = self._runs[one.number] = _Run(time, time, score)
            run.last, run.score = time, score
        elif run is not None and time - run.last >= PAUSE:
            del self._runs[one.number]
            return None
        return run

    def score(self, now: Posture) -> float:
        """How certain it is that a person lies, 0 to 1; 0 where the frame cuts the body."""
        at = self._limits
        if now.cut:
            return 0.0
        alone = ramp(now.flat, at.flat_alone, at.flat_alone / 2)
        if now.trunk is None:
            return alone
        level = ramp(abs(now.trunk), at.trunk, 0), ramp(now.flat, at.flat, at.flat / 2)
        return max(min(level), alone)


def _too_weak(score: float, least: float) -> Obstacle:
    score = round(score, 3)
    return Obstacle(below("lying", score, least), score, least, "lying")
