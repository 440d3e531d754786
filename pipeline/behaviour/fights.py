"""Fights between the persons of one camera.

Every person of the last two seconds gives a row of numbers: how fast the body, its outline and its
limbs move, how much moves in its box, and how near and how lively the next person is. A learned
head makes a score of each row. The score of the camera is the mean over its persons.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from pipeline.behaviour.found import Behaviour, behaviour
from pipeline.behaviour.persons import Person, place
from pipeline.behaviour.posture import SURE
from pipeline.judge.pose import Joint, Pose, unpack
from pipeline.judge.refusal import Obstacle, Refuse
from pipeline.judge.refusal_words import below
from pipeline.types import SECOND, Box

WINDOW = 2 * SECOND  # ns; of which a row is made
ENOUGH = 6  # frames in the window that must show a person
PAUSE = 3 * SECOND  # ns; a fight with a longer pause is another one
GAP = SECOND // 2  # ns; speeds are not measured over a longer gap
FAR = 3.0  # bodies; a person further away is as good as none
LIMBS = tuple(Joint(number) for number in range(Joint.LEFT_ELBOW, Joint.RIGHT_ANKLE + 1))
ARMS = LIMBS[:4]
MOVES = ("speed", "height", "width", "limbs", "arms", "motion")
FEATURES = (
    *(f"{name} {of}" for name in MOVES for of in ("mean", "max")),
    *("distance mean", "distance min", "overlap mean", "overlap max"),
    *("other's moves", "approach", "persons near"),
)

Row = tuple[float, ...]  # in the order of FEATURES
FightHead = Callable[[Sequence[Row]], Sequence[float]]  # rows -> scores, 0 to 1


class _Shown(NamedTuple):
    """A person in one frame; lengths in heights of the frame, speeds in bodies a second."""

    time: int
    box: Box
    aspect: float
    pose: Pose | None
    moves: tuple[float, ...]  # in the order of MOVES

    @property
    def body(self) -> float:
        return max(self.box.y2 - self.box.y1, (self.box.x2 - self.box.x1) * self.aspect, 1e-3)

    @property
    def centre(self) -> tuple[float, float]:
        box = self.box
        return (box.x1 + box.x2) / 2 * self.aspect, (box.y1 + box.y2) / 2


class Crowd:
    """Remembers the persons of the last two seconds and makes their rows."""

    def __init__(self) -> None:
        self._past: dict[int, deque[_Shown]] = {}  # by the number of the person

    def see(self, persons: Sequence[Person], aspect: float, time: int) -> None:
        """Takes a frame that was looked at."""
        for one in persons:
            if one.seen == time:
                past = self._past.setdefault(one.number, deque())
                past.append(_shown(one.box, aspect, time, past[-1] if past else None))
        for past in self._past.values():
            while past and past[0].time <= time - WINDOW:
                past.popleft()
        self._past = {number: past for number, past in self._past.items() if past}

    def rows(self) -> list[tuple[Row, Box]]:
        """The row and the last box of each person, by place."""
        made = [
            (self._row(number), past[-1].box)
            for number, past in self._past.items()
            if len(past) >= ENOUGH
        ]
        return sorted(made, key=lambda one: place(one[1]))

    def _row(self, number: int) -> Row:
        mine = self._past[number]
        row: list[float] = []
        for column in zip(*(shown.moves for shown in mine), strict=True):
            row += [sum(column) / len(column), max(column)]
        near, shared, lively, count = [], [], [], 0
        for shown in mine:
            others = list(self._others(number, shown.time))
            away = [_distance(shown, other) for other in others]
            count += sum(distance < 1.2 for distance in away)
            least = min(range(len(away)), key=away.__getitem__, default=None)
            near.append(FAR if least is None else min(away[least], FAR))
            shared.append(0.0 if least is None else _shared(shown.box, others[least].box))
            lively.append(0.0 if least is None else sum(others[least].moves[:4]))
        nearing = [abs(b - a) for a, b in pairwise(near)]
        frames = len(mine)
        row += [sum(near) / frames, min(near), sum(shared) / frames, max(shared)]
        row += [sum(lively) / frames, sum(nearing) / len(nearing), count / frames]
        return tuple(round(value, 4) for value in row)

    def _others(self, number: int, time: int) -> Iterator[_Shown]:
        for other, past in self._past.items():
            if other != number:
                yield from (shown for shown in past if shown.time == time)


class Fights:
    """Judges the persons of one camera, frame by frame; `least` is the score of a fight."""

    def __init__(self, head: FightHead, least: float = 0.5) -> None:
        self._head, self._least = head, least
        self._crowd = Crowd()
        self._until: int | None = None  # ns; when the fight was last seen

    def see(
        self,
        persons: Sequence[Person],
        aspect: float,
        time: int,
        *,
        gated: bool,
        refuse: Refuse | None = None,
    ) -> list[Behaviour]:
        """Returns the fight that begins in this frame, if one does."""
        if gated:  # nothing moves
            return []
        self._crowd.see(persons, aspect, time)
        rows = self._crowd.rows()
        scores = self._head([row for row, _ in rows]) if rows else ()
        score = fight_score(scores)
        if score < self._least:
            if refuse is not None and rows:
                refuse("behaviour", partial(_too_weak, round(score, 3), self._least))
            return []
        lasts = self._until is not None and time - self._until <= PAUSE
        self._until = time
        if lasts:
            return []
        best = max(range(len(rows)), key=scores.__getitem__)
        row, box = rows[best]
        moves = dict(zip(FEATURES, row, strict=True))
        why = (
            f"limbs at {moves['limbs mean']:.1f} and outline at"
            f" {moves['height mean'] + moves['width mean']:.1f} bodies a second, next person"
            f" {moves['distance min']:.1f} bodies away"
        )
        return [behaviour("fight", box, score, why)]


def fight_score(scores: Sequence[float]) -> float:
    """The score of a camera: the mean of those of its persons."""
    return sum(scores) / len(scores) if scores else 0.0


def _too_weak(score: float, least: float) -> Obstacle:
    return Obstacle(below("fight", score, least), score, least, "fight")


def _shown(box: Box, aspect: float, time: int, before: _Shown | None) -> _Shown:
    shown = _Shown(time, box, aspect, unpack(box.keypoints), ())
    if before is None or time - before.time > GAP:
        return shown._replace(moves=(0.0,) * 5 + (box.motion,))
    span, body = (time - before.time) / SECOND, (shown.body + before.body) / 2
    (x, y), (old_x, old_y) = shown.centre, before.centre
    old = before.box
    lengths = (
        math.hypot(x - old_x, y - old_y),
        abs((box.y2 - box.y1) - (old.y2 - old.y1)),
        abs((box.x2 - box.x1) - (old.x2 - old.x1)) * aspect,
        _limbs(shown, before, LIMBS),
        _limbs(shown, before, ARMS),
    )
    return shown._replace(moves=(*(each / body / span for each in lengths), box.motion))


def _limbs(now: _Shown, before: _Shown, joints: Sequence[Joint]) -> float:
    """How far the joints moved against the hips, on average; 0 where none is sure."""
    if now.pose is None or before.pose is None:
        return 0.0
    ways = []
    (x, y), (old_x, old_y) = _hips(now.pose), _hips(before.pose)
    for joint in joints:
        one, old = now.pose[joint], before.pose[joint]
        if min(one.score, old.score) >= SURE:
            across, down = (one.x - x) - (old.x - old_x), (one.y - y) - (old.y - old_y)
            ways.append(math.hypot(across * now.aspect, down))
    return sum(ways) / len(ways) if ways else 0.0


def _hips(pose: Pose) -> tuple[float, float]:
    left, right = pose[Joint.LEFT_HIP], pose[Joint.RIGHT_HIP]
    return (left.x + right.x) / 2, (left.y + right.y) / 2


def _distance(one: _Shown, other: _Shown) -> float:
    (x, y), (other_x, other_y) = one.centre, other.centre
    return math.hypot(x - other_x, y - other_y) * 2 / (one.body + other.body)


def _shared(one: Box, other: Box) -> float:
    """The shared part of the smaller box."""
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    areas = ((box.x2 - box.x1) * (box.y2 - box.y1) for box in (one, other))
    return max(wide, 0.0) * max(high, 0.0) / max(min(areas), 1e-9)
