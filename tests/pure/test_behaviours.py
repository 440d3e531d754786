"""Falls and persons who lie, on made trajectories: what is told, when, and what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from pipeline.behaviour.rule import BehaviourJudge
from pipeline.config.rule_kinds import BehaviourRule, RuleSite
from pipeline.config.schema import Detect
from pipeline.judge.rules import RuleFinding
from pipeline.types import SECOND, Box, Detections, ns
from pipeline.zones import Polygon
from tests.actors import FPS, Step, person, played
from tests.make import detections
from workers.stages.camera_tracks import CameraTracks

BOTH = {"fall": 0.5, "lying": 0.5}
FALLS: Sequence[Step] = (("stands", 2), ("lies", 0.8), ("lies", 3))


def judge(zone: str = "", schedule: str = "", seconds: float = 2.0) -> BehaviourJudge:
    rule = BehaviourRule(
        labels=BOTH, zone="floor" if zone else "", seconds=seconds, schedule=schedule
    )
    area = Polygon.parse(zone) if zone else None
    return BehaviourJudge(
        "behaviour", rule, area, camera="desk", timezone=ZoneInfo("UTC"), horizon=120
    )


def seen(
    frames: Iterable[Detections], by: BehaviourJudge | None = None, *, watched: bool = True
) -> list[RuleFinding]:
    """What is found in the frames, after tracking."""
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    by, found = by or judge(), []
    for record in frames:
        frame = tracks.see(record)
        assert frame is not None
        found += by.see(replace(frame, watched=watched))
    return found


def film(
    steps: Sequence[Step], made: Callable[[int, Box], Sequence[Box]] = lambda k, box: [box]
) -> list[Detections]:
    """The frames of a person; `made` may change the boxes of frame k."""
    boxes = [person(body) for body in played(steps)]
    return [detections(k / FPS, *made(k, box)) for k, box in enumerate(boxes)]


def labels(found: Sequence[RuleFinding]) -> list[str]:
    return [each.label for each in found]


def test_a_fall_is_told_once_soon_and_with_what_carried_it() -> None:
    fall, lying = seen(film(FALLS))
    assert (fall.label, fall.kind, fall.sure, fall.object) == ("fall", "behaviour", True, "person")
    assert 2.8 * SECOND <= fall.start <= 4 * SECOND
    assert fall.score > 0.8
    assert fall.reason.startswith("person fell (camera desk): trunk from 90 to ")
    assert fall.box == (0.359, 0.8, 0.641, 0.9)
    assert lying.label == "lying"
    assert lying.reason == "person lies (camera desk): for 2 s"


@pytest.mark.parametrize(
    "steps",
    [
        (("stands", 2), ("sits", 0.6), ("sits", 4)),
        (("stands", 2), ("bends", 0.6), ("bends", 4)),
        (("stands", 2), ("bends", 0.6), ("stands", 0.6), ("stands", 2)),
        (("sits", 2), ("bends", 0.6), ("sits", 0.6), ("sits", 2)),
        (("stands", 2), ("kneels", 0.8), ("kneels", 4)),
        (("stands", 2), ("squats", 0.8), ("squats", 4)),
        (("stands", 2), ("on floor", 1.2), ("on floor", 4)),
    ],
)
@pytest.mark.parametrize("posed", [True, False])
def test_sitting_bending_and_kneeling_are_neither_a_fall_nor_lying(
    steps: Sequence[Step], posed: bool
) -> None:
    frames = film(steps, lambda k, box: [box if posed else replace(box, keypoints=b"")])
    assert seen(frames) == []


def test_who_lies_down_slowly_lies_and_did_not_fall() -> None:
    steps = (("stands", 2), ("on floor", 1.6), ("on floor", 1), ("lies", 3), ("lies", 4))
    assert labels(seen(film(steps))) == ["lying"]


def test_who_gets_up_at_once_did_not_fall() -> None:
    steps = (("stands", 2), ("lies", 0.6), ("stands", 0.4), ("stands", 3))
    assert seen(film(steps)) == []


def test_a_fall_from_a_chair_is_a_fall() -> None:
    assert labels(seen(film((("sits", 2), ("lies", 0.8), ("lies", 1))))) == ["fall"]


def test_where_no_pose_is_known_the_box_tells_of_a_fall() -> None:
    found = seen(film(FALLS, lambda k, box: [replace(box, keypoints=b"")]))
    assert labels(found) == ["fall", "lying"]
    assert found[0].reason == "person fell (camera desk): body down to 20% of its height in 0.8 s"


def test_a_person_whom_the_detector_hardly_sees_on_the_floor_is_followed() -> None:
    def faint(k: int, box: Box) -> Sequence[Box]:
        if k <= 12:
            return [box]
        return [replace(box, score=0.25)] if k % 2 else []

    assert labels(seen(film(FALLS, faint))) == ["fall", "lying"]


def test_who_leaves_the_frame_at_its_lower_edge_did_not_fall() -> None:
    boxes = []
    for k in range(25):
        box = person(next(iter(played((("stands", 0.2),)))), floor=0.9 + max(0, k - 10) * 0.04)
        boxes.append(detections(k / FPS, *([box] if box.y1 < 0.97 else [])))
    assert seen(boxes) == []


def test_one_lying_is_told_once_and_another_one_again() -> None:
    lies = (("lies", 0.8), ("lies", 8), ("stands", 1), ("stands", 7))
    found = seen(film((("stands", 2), *lies, *lies)))
    assert labels(found) == ["fall", "lying", "fall", "lying"]


def test_lying_counts_on_while_nothing_moves() -> None:
    def still(frames: list[Detections]) -> list[Detections]:
        return [
            replace(one, boxes=(), gated=True) if k > 20 and k % 10 else one
            for k, one in enumerate(frames)
        ]

    steps = (("stands", 2), ("lies", 0.8), ("lies", 22))
    looked, gated = film(steps), still(film(steps))
    by = [judge(seconds=20), judge(seconds=20)]
    assert seen(gated, by[0]) == seen(looked, by[1])
    assert seen(gated, judge(seconds=20))[1].start == ns(2.4 + 20)


@pytest.mark.parametrize(
    ("zone", "told"),
    [("0.2,0.5, 0.8,0.5, 0.8,1, 0.2,1", ["fall", "lying"]), ("0,0, 1,0, 1,0.5", [])],
)
def test_only_what_happens_in_the_zone_is_told(zone: str, told: list[str]) -> None:
    found = seen(film(FALLS), judge(zone))
    assert labels(found) == told
    assert all(each.zone == "floor" for each in found)


def test_who_is_seen_faintly_on_the_floor_lies_on() -> None:
    def faint(k: int, box: Box) -> Sequence[Box]:
        return [replace(box, score=0.15 if k > 3 * FPS else 0.9)]

    steps: Sequence[Step] = (*FALLS, ("lies", 40))
    assert labels(seen(film(steps, faint), judge(seconds=30))) == ["fall", "lying"]


def test_nothing_is_told_while_the_rule_does_not_hold() -> None:
    assert seen(film(FALLS), watched=False) == []
    assert seen(film(FALLS), judge(schedule="06:00-22:00")) == []


def test_who_lies_when_the_hours_begin_is_told_then_and_the_fall_before_is_not() -> None:
    steps: Sequence[Step] = (*FALLS, ("lies", 60))
    (found,) = seen(film(steps), judge(schedule="00:01-22:00"))
    assert (found.label, found.start) == ("lying", 60 * SECOND)


def test_who_lies_on_is_told_once_each_time_that_the_rule_is_switched_on() -> None:
    by = judge()
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    told = []
    for record in film((*FALLS, ("lies", 100))):
        frame = tracks.see(record)
        assert frame is not None
        on = frame.start // SECOND % 40 < 20
        told += [(f.label, f.start // SECOND) for f in by.see(replace(frame, watched=on))]
    assert told == [("fall", 3), ("lying", 4), ("lying", 40), ("lying", 80)]


@pytest.mark.parametrize("label", ["fall", "fight", "running"])
def test_seconds_are_limited_only_where_they_are_used(label: str) -> None:
    for more, many in (((), 0), (("lying",), 1)):
        rule = BehaviourRule(labels=dict.fromkeys((label, *more), 0.5), seconds=119)
        site = RuleSite(cameras=("desk",), zones=(), lines=(), microphones=(), horizon=120)
        assert len([p for p in rule.problems(site, ()) if p.path == ("seconds",)]) == many
