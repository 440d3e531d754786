"""Fights, on made trajectories: the rows of persons, what the head is asked, and what is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from models.behaviour.fight_head import FightHead
from pipeline.behaviour.fights import FEATURES, Crowd, Row
from pipeline.behaviour.persons import Persons
from pipeline.behaviour.rule import BehaviourJudge
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Detect
from pipeline.judge.rules import RuleFinding
from pipeline.types import SECOND, Detections
from tests.actors import FPS, POSTURES, person
from tests.make import detections
from workers.stages.camera_tracks import CameraTracks

MOVES = FEATURES.index("width mean")


def lively(rows: Sequence[Row]) -> list[float]:
    """A head for tests: a person whose outline changes fast fights."""
    return [min(1.0, row[MOVES] / 2) for row in rows]


def film(seconds: Sequence[tuple[float, float]], apart: float = 0.1) -> list[Detections]:
    """Two persons; each of `seconds` is (how long, how much their outlines change)."""
    frames = []
    for span, change in seconds:
        for _ in range(round(span * FPS)):
            k = len(frames)
            body = POSTURES["stands"]
            wide = body._replace(width=body.width + change * (k % 2))
            two = person(wide, 0.5 - apart / 2), person(wide, 0.5 + apart / 2)
            frames.append(detections(k / FPS, *(replace(box, motion=0.25) for box in two)))
    return frames


def tracked(frames: Sequence[Detections], judge: BehaviourJudge) -> list[RuleFinding]:
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    return [f for one in frames if (frame := tracks.see(one)) for f in judge.see(frame)]


def judge() -> BehaviourJudge:
    rule = BehaviourRule(labels={"fight": 0.5})
    utc = ZoneInfo("UTC")
    return BehaviourJudge("b", rule, None, camera="desk", timezone=utc, horizon=120, fight=lively)


def row(frames: Sequence[Detections]) -> dict[str, float]:
    """The row of the left person after the last frame."""
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    persons, crowd = Persons(), Crowd()
    for one in frames:
        frame = tracks.see(one)
        assert frame is not None
        crowd.see(persons.see(frame), frame.aspect, frame.start)
    return dict(zip(FEATURES, crowd.rows()[0][0], strict=True))


def test_a_fight_is_told_once_while_it_lasts_and_again_after_a_pause() -> None:
    found = tracked(film([(3, 0), (8, 0.4), (8, 0), (4, 0.4)]), judge())
    assert [(f.label, f.kind, f.object) for f in found] == [("fight", "behaviour", "person")] * 2
    assert 3 * SECOND < found[0].start < 5 * SECOND
    assert found[1].start > 19 * SECOND
    assert found[0].reason.startswith("fight (camera desk): limbs at ")


def test_persons_who_stand_do_not_fight() -> None:
    assert tracked(film([(10, 0)]), judge()) == []


def test_the_row_of_a_person_tells_how_it_moves_and_who_is_near() -> None:
    made = row(film([(4, 0.4)]))
    assert made["width mean"] == pytest.approx(0.4 * FPS, rel=0.15)  # bodies a second
    assert made["height max"] == 0
    assert made["motion mean"] == 0.25
    assert made["distance mean"] == pytest.approx(0.1 * 16 / 9 / 0.5, rel=0.05)  # bodies
    assert made["persons near"] == 1


def test_a_person_far_away_is_nobody() -> None:
    made = row(film([(4, 0.0)], apart=0.9))
    assert made["distance min"] == pytest.approx(3.0)
    assert made["persons near"] == 0


def test_a_fight_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="no head that recognizes a fight"):
        BehaviourJudge(
            "b",
            BehaviourRule(labels={"fight": 0.5}),
            None,
            camera="desk",
            timezone=ZoneInfo("UTC"),
            horizon=120,
        )


def test_the_shipped_head_takes_rows_and_gives_scores() -> None:
    head = FightHead.shipped()
    scores = head([tuple(0.0 for _ in FEATURES), tuple(1.0 for _ in FEATURES)])
    assert all(0 <= score <= 1 and math.isfinite(score) for score in scores)
    assert "clips" in head.data
    assert "AUC" in head.figures
