"""What behaviours see in each frame of one camera, as numbers for a learned head.

The numbers are those from which falls, lying and fights are judged. The score of the head of fights
is none of them: that head is experimental, and a change of it must not change what another head
was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.behaviour.falls import Falls
from pipeline.behaviour.fights import FAR, FEATURES, Crowd
from pipeline.behaviour.lying import Lying
from pipeline.behaviour.persons import Person, Persons
from pipeline.judge.rules import TrackedFrame
from pipeline.types import SECOND

TILT_OVER = SECOND  # ns; the fall of a trunk is measured over at most this time
DOWN = 0.5  # the score from which a person lies
DIGITS = 4
_AT = {name: number for number, name in enumerate(FEATURES)}


class Evidence(NamedTuple):
    """The persons of one frame; each number is the highest of a person, 0 where there is none.

    From `limbs` on they are those of the last two seconds, and 0 in a gated frame.
    """

    persons: int = 0
    posed: int = 0  # persons with a pose
    down: int = 0  # persons who lie
    fall: float = 0.0  # score of a fall, 0 to 1
    lying: float = 0.0  # score of lying, 0 to 1
    tilt: float = 0.0  # degrees by which a trunk has come down within a second
    limbs: float = 0.0  # bodies a second, against the hips
    outline: float = 0.0  # bodies a second, of height and width of the box
    energy: float = 0.0  # recorded motion in the box, 0 to 1
    nearness: float = 0.0  # 1 - distance to the next person / FAR bodies
    overlap: float = 0.0  # of two boxes, share of the smaller
    approach: float = 0.0  # change of the distance in a frame, bodies


class EvidenceOfBehaviour:
    """Follows the persons of one camera; `horizon`, ns, is how far back the site is remembered."""

    def __init__(self, horizon: int = 0) -> None:
        self._persons, self._crowd = Persons(horizon), Crowd()
        self._falls, self._lying = Falls(), Lying(0, 0)

    def needs(self, limit: int) -> int:
        """As `Persons.needs`."""
        return self._persons.needs(limit)

    def see(self, frame: TrackedFrame) -> Evidence:
        """Takes the next frame and returns what it shows."""
        known = self._persons.see(frame)
        if not frame.gated:
            self._crowd.see(known, frame.aspect, frame.start)
        shown = [one for one in known if one.seen == frame.start]
        if not shown:
            return Evidence()
        lying = [self._lying.score(one.now) for one in shown]
        seen = Evidence(
            persons=len(shown),
            posed=sum(bool(one.box.keypoints) for one in shown),
            down=sum(score >= DOWN for score in lying),
            fall=_rounded(self._falls.best(one) for one in shown),
            lying=_rounded(lying),
            tilt=_rounded(_tilt(one) for one in shown),
        )
        rows = [] if frame.gated else [row for row, _ in self._crowd.rows()]
        if not rows:
            return seen

        def most(*names: str) -> float:
            return _rounded(sum(row[_AT[name]] for name in names) for row in rows)

        return seen._replace(
            limbs=most("limbs mean"),
            outline=most("height mean", "width mean"),
            energy=most("motion mean"),
            nearness=round(1 - min(row[_AT["distance min"]] for row in rows) / FAR, DIGITS),
            overlap=most("overlap mean"),
            approach=most("approach"),
        )


def _rounded(values: Iterable[float]) -> float:
    return round(max(values), DIGITS)


def _tilt(one: Person) -> float:
    """Returns by how many degrees the trunk has come down; 0 where the keypoints are weak."""
    trunk = one.now.trunk
    if trunk is None:
        return 0.0
    before = [
        high.trunk
        for time, high in one.past
        if high.trunk is not None and one.seen - time <= TILT_OVER
    ]
    return max(before) - trunk
