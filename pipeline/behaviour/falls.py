"""Falls of the persons of one camera.

A person falls if shoulders and hips come down fast, by a good part of the body, and the body stays
down. Bending brings the hips down not at all; sitting down and kneeling leave the body high; who
lies down takes longer. `docs/explanations/behaviours.md` says how the numbers were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from pipeline.behaviour.found import Behaviour, behaviour, ramp
from pipeline.behaviour.persons import Person
from pipeline.behaviour.posture import Posture
from pipeline.judge.refusal import Obstacle, Refuse
from pipeline.judge.refusal_words import below, seconds_of
from pipeline.types import FOREVER, SECOND, ns

RISEN = 0.2  # of the body: who has risen so far has got up
TURN = 30  # degrees from which the angle of the trunk is told; it is small towards the camera


class FallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The values at which a fall has a score of 0.5. Lengths are parts of the body."""

    within: float = 1.8  # s; the time of the way down
    stays: float = 0.6  # s; the time on the floor until a fall is told
    shoulders: float = 0.26  # by how much the shoulders come down
    hips: float = 0.09  # by how much the hips come down
    level: float = 0.46  # the height of the body afterwards
    again: float = 5.0  # s; a person who fell is not told again


class _Down(msgspec.Struct, frozen=True):
    """A person comes down; the surest sign is `high` at `began` and `low` at `ended`, ns.

    `time` is when the score of a fall was reached.
    """

    time: int
    began: int
    ended: int
    high: Posture
    low: Posture
    score: float
    times: int = 1  # in how many frames the person was seen coming down or being down
    told: bool = False


class Falls:
    """Judges the persons of one camera, frame by frame; `least` is the score of a fall.

    `memory` is how far back a fall is remembered, ns.
    """

    def __init__(
        self,
        least: float = 0.5,
        limits: FallLimits | None = None,
        memory: int = FOREVER,
    ) -> None:
        self._least, self._limits, self._memory = least, limits or FallLimits(), memory
        self._down: dict[int, _Down] = {}  # by the number of the person
        self._told: dict[int, int] = {}  # likewise; ns

    def see(
        self, persons: Sequence[Person], time: int, refuse: Refuse | None = None
    ) -> list[Behaviour]:
        """Returns the falls that are certain in this frame, each once."""
        known = {one.number for one in persons}
        self._down = {
            number: down
            for number, down in self._down.items()
            if number in known and time - down.time <= self._memory
        }
        self._told = {
            number: at
            for number, at in self._told.items()
            if number in known and time - at < ns(self._limits.again)
        }
        found = []
        for one in persons:
            down = self._follow(one, time)
            if down is None:
                self._down.pop(one.number, None)
                continue
            if self._stays(down, time) and not down.told:
                if one.number not in self._told:
                    found.append(self._fall(one, down))
                self._told[one.number] = time
                down = replace(down, told=True)
            elif refuse is not None and not down.told:
                refuse("behaviour", partial(self._not_yet, down, time))
            self._down[one.number] = down
        return found

    def fallen(self, one: Person, since: int) -> bool:
        """Whether a fall since `since` (ns) was told of the person, who has not got up."""
        down = self._down.get(one.number)
        return down is not None and down.told and down.time >= since

    def best(self, one: Person) -> float:
        """How certain it is that a person has come down to the present posture just now, 0 to 1."""
        since = one.seen - ns(self._limits.within)
        return max((self.score(p, one.now) for time, p in one.past if since <= time), default=0.0)

    def _stays(self, down: _Down, time: int) -> bool:
        """Whether a person is down for long enough, and was seen so in more than one frame."""
        sure = down.score >= self._least and down.times > 1
        return sure and time - down.time >= ns(self._limits.stays)

    def _not_yet(self, down: _Down, time: int) -> Obstacle:
        """Why a person who comes down has not fallen."""
        score = round(down.score, 3)
        if score < self._least:
            return Obstacle(below("fall", score, self._least), score, self._least, "fall")
        stays = seconds_of(self._limits.stays)
        on = seconds_of((time - down.time) / SECOND)
        why = f"fall {score:.2f}: down for {on} < {stays}, or seen down in one frame only"
        return Obstacle(why, score, self._least, "fall")

    def _follow(self, one: Person, time: int) -> _Down | None:
        """What is known of a person on the floor: a new fall, or the one before."""
        down = self._down.get(one.number)
        if one.seen < time:
            return down
        fallen = self._fallen(one)
        if down is None:
            return fallen
        if one.now.shoulders < down.low.shoulders - RISEN * down.high.length:
            return None
        if fallen is not None and fallen.score > down.score:
            since = down.time if down.score >= self._least else fallen.time
            down = replace(fallen, time=since, times=down.times, told=down.told)
        return replace(down, times=down.times + 1)

    def _fallen(self, one: Person) -> _Down | None:
        """The most certain fall to the present posture from one of the last seconds, if any."""
        best: _Down | None = None
        for began, high in one.past:
            if 0 < one.seen - began <= ns(self._limits.within):
                score = self.score(high, one.now)
                if score >= self._least / 2 and (best is None or score >= best.score):
                    best = _Down(one.seen, began, one.seen, high, one.now, score)
        return best

    def score(self, high: Posture, low: Posture) -> float:
        """How certain it is that a person who was `high` and is `low` now has fallen, 0 to 1."""
        if low.cut:
            return 0.0
        at, body = self._limits, high.length
        shoulders = ramp((low.shoulders - high.shoulders) / body, at.shoulders, 2 * at.shoulders)
        hips = ramp((low.hips - high.hips) / body, at.hips, 2 * at.hips)
        return min((shoulders + hips) / 2, ramp(low.height / body, at.level, at.level / 2))

    def _fall(self, one: Person, down: _Down) -> Behaviour:
        took = (down.ended - down.began) / SECOND
        trunks = down.high.trunk, down.low.trunk
        if trunks[0] is not None and trunks[1] is not None and trunks[0] - trunks[1] >= TURN:
            what = f"trunk from {trunks[0]:.0f} to {trunks[1]:.0f} degrees"
        else:
            share = down.low.height / down.high.length
            what = f"body down to {share:.0%} of its height"
        return behaviour("fall", one.box, down.score, f"{what} in {took:.1f} s")
