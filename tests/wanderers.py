"""Long random films of a camera: persons, cars and bags that come, stay, change, hide and go.

The detector is sure of them, unsure, or misses them; poses and looks come and go; frames are gated
where nothing moves; and the camera gives no frames for a while. One seed makes one film.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from pipeline.tracking.appearance import SIZE
from pipeline.types import SECOND, Box, Detections, Progress, Record, ns
from tests.actors import POSTURES, Body, person
from tests.make import SITE, box

FPS = 5
HEARTBEAT = 10  # frames
CLOSES_AFTER = 5  # frames in which nothing moves
MOODS = {  # how sure the detector is: chances of a sure box, of a faint one and of none
    "sure": (0.95, 0.04, 0.01),
    "mixed": (0.4, 0.5, 0.1),
    "faint": (0.0, 0.95, 0.05),
    "dim": (0.0, 0.6, 0.4),
    "gone": (0.0, 0.0, 1.0),
}
THINGS = {"car": (0.2, 0.2), "suitcase": (0.06, 0.12)}  # width and height


class _Wanderer:
    """Something that walks, stands, changes its posture, hides and goes away; `row` is its place
    across the picture, so that most of them do not meet."""

    def __init__(self, chance: random.Random, label: str, row: float) -> None:
        self._chance, self._label = chance, label
        self._row, self._x = row, chance.uniform(0.15, 0.85)
        self._step = 0.0
        self._body, self._goal = POSTURES["stands"], POSTURES["stands"]
        self._mood, self._weak = "sure", False
        self._looks = [_look(chance), _look(chance)] if chance.random() < 0.6 else []
        self._left = 0  # frames until it does something else

    def next(self) -> tuple[bool, Box | None]:
        """Whether it moves in the next frame, and the box that the detector finds, if any."""
        chance = self._chance
        if self._left <= 0:
            self._decide()
        self._left -= 1
        before = self._x, self._body
        self._x = min(max(self._x + self._step, 0.0), 1.0)
        near = (a + (b - a) * 0.34 for a, b in zip(self._body, self._goal, strict=True))
        self._body = Body(*(round(each, 3) for each in near))
        moves = self._mood != "gone" and before != (self._x, self._body)
        kind = chance.choices(("sure", "faint", "none"), MOODS[self._mood])[0]
        if kind == "none":
            return moves, None
        least, most = (0.4, 0.95) if kind == "sure" else (0.1, 0.19 if self._weak else 0.39)
        return moves, self._box(round(chance.uniform(least, most), 3))

    def _decide(self) -> None:
        chance = self._chance
        self._left = round(chance.choice((1, 2, 4, 8, 16, 30)) * FPS * chance.uniform(0.5, 1.2))
        self._mood = chance.choice(tuple(MOODS))
        self._weak = chance.random() < 0.3
        walks = chance.random() < 0.4
        self._step = chance.choice((-0.06, -0.02, -0.01, 0.01, 0.02, 0.06)) if walks else 0.0
        if self._mood == "gone" and chance.random() < 0.3:  # another one comes
            self._x = chance.uniform(0.1, 0.9)
        self._goal = POSTURES["stands" if walks else chance.choice(sorted(POSTURES))]

    def _box(self, score: float) -> Box:
        if self._label != "person":
            width, height = THINGS[self._label]
            place = {"x": self._x, "y": self._row - height / 2, "width": width, "height": height}
            return box(self._label, score=score, **place)
        posed = self._chance.random() < 0.7
        made = person(self._body, self._x, self._row, score=score, posed=posed)
        if not self._looks or score < 0.3:
            return made
        look = self._looks[self._chance.random() < 0.05]
        return msgspec.structs.replace(made, appearance=look)


def _look(chance: random.Random) -> bytes:
    return bytes(chance.randint(0, 20) for _ in range(SIZE))


def film(seed: int, seconds: int, begin: float) -> list[Record]:
    """The records of the camera `desk`, in order."""
    chance = random.Random(seed)
    rows = chance.sample((0.45, 0.6, 0.75, 0.9), chance.randint(1, 3))
    some = [_Wanderer(chance, chance.choice(("person", "person", "car")), row) for row in rows]
    if chance.random() < 0.4:
        some.append(_Wanderer(chance, "suitcase", rows[0]))
    gates, gaps = chance.random() < 0.5, chance.random() < 0.3
    frames = seconds * FPS
    return list(_records(chance, some, ns(begin), frames, gates=gates, gaps=gaps))


def _records(
    chance: random.Random,
    some: list[_Wanderer],
    begin: int,
    frames: int,
    *,
    gates: bool,
    gaps: bool,
) -> Iterator[Record]:
    rests, silent = 0, 0
    for frame in range(frames):
        shown = [each.next() for each in some]
        rests = 0 if any(moves for moves, _ in shown) else rests + 1
        due = begin + frame * SECOND // FPS
        start = due + chance.randint(0, SECOND // 50)
        yield Progress(site=SITE, source="desk", upto=due)
        if gaps and silent <= 0 and chance.random() < 0.005:
            silent = chance.randint(5, 40)
        silent -= 1
        if silent > 0:
            continue
        gated = gates and rests > CLOSES_AFTER and frame % HEARTBEAT != 0
        yield Detections(
            site=SITE,
            source="desk",
            start=start,
            end=start + SECOND // FPS,
            boxes=() if gated else tuple(found for _, found in shown if found),
            luma=-1.0 if gated else 0.5,
            sharpness=-1.0 if gated else 3.0,
            gated=gated,
        )
